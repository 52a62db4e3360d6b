"""Which rails of a Jetson's INA3221 add up to the whole module.

| board | rails | total |
|---|---|---|
| Nano | POM_5V_IN, POM_5V_GPU, POM_5V_CPU | POM_5V_IN |
| TX1, TX2 | VDD_IN, VDD_SYS_GPU, VDD_SYS_SOC, VDD_SYS_CPU, VDD_SYS_DDR, VDD_4V0_WIFI | VDD_IN |
| Xavier NX, Orin NX, Orin Nano | VDD_IN, VDD_CPU_GPU_CV, VDD_SOC | VDD_IN |
| AGX Xavier | GPU, CPU, SOC, CV, VDDRQ, SYS5V | all six |
| AGX Orin | VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0, VDDQ_VDD2_1V8AO | the first three |

The input rail contains the others. On an AGX Orin VDDQ_VDD2_1V8AO hangs behind VIN_SYS_5V0 and is contained
in it; jetson-stats adds it all the same.

Source: NVIDIA Jetson Linux Developer Guide, Platform Power and Performance, "Software-Based Power Consumption
Modeling", one page a board; forums.developer.nvidia.com/t/73608 (Nano), /t/200883 (NX), /t/75574 (AGX
Xavier); jetson-stats, jtop/core/power.py.
"""

from collections.abc import Mapping, Sequence

from device_agent.errors import SensorError
from device_agent.sensors.rails import Rail, RailMeter

TOTALS = ("VDD_IN", "POM_5V_IN")
SUMS = (
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
)


def total_meter(rails: Sequence[Rail]) -> RailMeter:
    """Return a meter of the whole module.

    Args:
        rails: All that are connected, at least one.

    Raises:
        SensorError: If the rails are of no known board: adding unknown ones might count some twice.
    """
    names = _total_of({rail.name for rail in rails})
    by_name: Mapping[str, Rail] = {rail.name: rail for rail in rails}
    return RailMeter([by_name[name] for name in names], " + ".join(names))


def _total_of(names: set[str]) -> tuple[str, ...]:
    for total in TOTALS:
        if total in names:
            return (total,)
    for parts in SUMS:
        if names.issuperset(parts):
            return parts
    known = ", ".join(TOTALS) + " or " + " or ".join(" + ".join(parts) for parts in SUMS)
    raise SensorError(
        f"the INA3221 has the rails {', '.join(sorted(names))}; expected {known};"
        " add an INA226 in the supply line and ask for ina2xx"
    )
