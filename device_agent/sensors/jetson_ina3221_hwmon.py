"""The power monitor of a Jetson with JetPack 5 or later, as the kernel's ina3221 driver shows it.

    $ cd /sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3; grep . in?_label in?_input curr?_input
    in1_label:VDD_IN               in1_input:4992    mV        curr1_input:936    mA
    in2_label:VDD_CPU_GPU_CV       in2_input:4992              curr2_input:120
    in3_label:VDD_SOC              in3_input:4984              curr3_input:288
    in7_label:sum of shunt voltages                            curr4_input:0

Inputs 4 to 6 are shunt voltages and in7 is their sum, in µV: no supply line. A channel labelled NC is not
connected; one that is disabled answers ENODATA and is left out. Which rails are the total: `jetson_rails`.

Source: docs.kernel.org/hwmon/ina3221.html; NVIDIA Jetson Linux Developer Guide 34.1, "Jetson Orin NX Series
and Jetson AGX Orin Series".
"""

from dataclasses import dataclass, field
from pathlib import Path

from device_agent.board.files import read_text
from device_agent.sensors.base import PowerMeter, Scope, SensorMissingError, trial_reading
from device_agent.sensors.jetson_rails import total_meter
from device_agent.sensors.rails import Rail

LABELS = "sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in[123]_label"


@dataclass(frozen=True, slots=True, kw_only=True)
class JetsonHwmon:
    """The module of a Jetson with JetPack 5 or later."""

    name: str = field(default="jetson-hwmon", init=False)
    scope: Scope = field(default=Scope.BOARD, init=False)
    calibration: str = field(default="", init=False)

    def absent_reason(self, root: Path) -> str | None:
        """Return why there is no reading; None where there is one."""
        return trial_reading(self, root)

    def open(self, root: Path) -> PowerMeter:
        """Return a meter of the whole module.

        Raises:
            SensorMissingError: If this is no Jetson with JetPack 5.
            SensorError: If its rails are unknown.
        """
        rails = [rail for label in sorted(root.glob(LABELS)) if (rail := _rail(label)) is not None]
        if not rails:
            raise SensorMissingError(
                f"no labelled rail below {root / 'sys/bus/i2c/drivers/ina3221'}; a Jetson with JetPack 5 has"
                " them; elsewhere add an INA226 in the supply line"
            )
        return total_meter(rails)


def _rail(label: Path) -> Rail | None:
    name, number = read_text(label), label.name.removeprefix("in").removesuffix("_label")
    if name is None or name == "NC" or read_text(label.with_name(f"in{number}_enable")) == "0":
        return None
    voltage, current = (label.with_name(f"{kind}{number}_input") for kind in ("in", "curr"))
    return Rail(name=name, factors=(voltage, current), to_mw=1e-3)
