"""The power monitor of a Jetson with JetPack 4, as NVIDIA's own ina3221x driver shows it.

    $ cd /sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0; grep . rail_name_* in_power*_input
    rail_name_0:POM_5V_IN          in_power0_input:2532        mW
    rail_name_1:POM_5V_GPU         in_power1_input:0
    rail_name_2:POM_5V_CPU         in_power2_input:451
    in_voltage0_input:5064         mV
    in_current0_input:500          mA

A TX2 has two chips, 0-0040 and 0-0041. Which rails are the total: `jetson_rails`.

Source: NVIDIA L4T Development Guide 32.x, "Software-Based Power Consumption Modeling"; jetson-stats,
jtop/core/power.py.
"""

from dataclasses import dataclass, field
from pathlib import Path

from device_agent.board.files import read_text
from device_agent.sensors.base import PowerMeter, Scope, SensorMissingError, trial_reading
from device_agent.sensors.jetson_rails import total_meter
from device_agent.sensors.rails import Rail

LABELS = "sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"


@dataclass(frozen=True, slots=True, kw_only=True)
class JetsonIio:
    """The module of a Jetson with JetPack 4."""

    name: str = field(default="jetson-iio", init=False)
    scope: Scope = field(default=Scope.BOARD, init=False)
    calibration: str = field(default="", init=False)

    def absent_reason(self, root: Path) -> str | None:
        """Return why there is no reading; None where there is one."""
        return trial_reading(self, root)

    def open(self, root: Path) -> PowerMeter:
        """Return a meter of the whole module.

        Raises:
            SensorMissingError: If this is no Jetson with JetPack 4.
            SensorError: If its rails are unknown.
        """
        rails = [rail for label in sorted(root.glob(LABELS)) if (rail := _rail(label)) is not None]
        if not rails:
            raise SensorMissingError(
                f"no rail below {root / 'sys/bus/i2c/drivers/ina3221x'}; a Jetson with JetPack 4 has them;"
                " elsewhere add an INA226 in the supply line"
            )
        return total_meter(rails)


def _rail(label: Path) -> Rail | None:
    name, number = read_text(label), label.name.removeprefix("rail_name_")
    if name is None or name == "NC":
        return None
    power = label.with_name(f"in_power{number}_input")
    if power.exists():
        return Rail(name=name, factors=(power,), to_mw=1.0)
    voltage, current = (label.with_name(f"in_{kind}{number}_input") for kind in ("voltage", "current"))
    return Rail(name=name, factors=(voltage, current), to_mw=1e-3)
