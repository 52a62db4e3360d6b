"""The battery of a phone or a laptop, through the kernel's power_supply class.

    $ cd /sys/class/power_supply/BAT0; grep . type status current_now voltage_now power_now
    type:Battery
    status:Discharging             Charging, Not charging, Full, Unknown
    current_now:-684000            µA; negative or positive while it discharges, as the driver likes
    voltage_now:11873000           µV
    power_now:8120000              µW, of drivers that tell no current

It measures the load only while it is the one supply: any charger, even a weak one, takes part of it. The
battery of a mouse has `scope` Device. Some laptops have two and use them in turn, so all are added.

Source: docs.kernel.org/admin-guide/abi-testing.html, /sys/class/power_supply; drivers/power/supply/
power_supply_sysfs.c.
"""

from dataclasses import dataclass, field
from pathlib import Path

from device_agent.board.files import read_integer, read_text
from device_agent.errors import SensorError
from device_agent.sensors.base import PowerMeter, Scope, SensorMissingError, trial_reading
from device_agent.sensors.rails import Rail, RailMeter

CHARGERS = frozenset({"Mains", "USB", "Wireless"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Battery:
    """All that the batteries deliver."""

    name: str = field(default="battery", init=False)
    scope: Scope = field(default=Scope.INPUT, init=False)
    calibration: str = field(default="", init=False)

    def absent_reason(self, root: Path) -> str | None:
        """Return why there is no reading; None where there is one."""
        return trial_reading(self, root)

    def open(self, root: Path) -> PowerMeter:
        """Return a meter of all batteries that supply the board.

        Raises:
            SensorMissingError: If it has none.
        """
        supplies = sorted(root.glob("sys/class/power_supply/*"))
        batteries = [folder for folder in supplies if _supplies_board(folder)]
        if not batteries:
            raise SensorMissingError(
                f"no battery below {root / 'sys/class/power_supply'}; phones and laptops have one; elsewhere"
                " add an INA226 in the supply line"
            )
        chargers = [folder for folder in supplies if read_text(folder / "type") in CHARGERS]
        return RailMeter(
            [_rail(battery) for battery in batteries],
            " + ".join(battery.name for battery in batteries),
            check=lambda: _check_discharging(batteries, chargers),
        )


def _supplies_board(folder: Path) -> bool:
    return (
        read_text(folder / "type") == "Battery"
        and read_text(folder / "scope") != "Device"
        and read_integer(folder / "present") != 0
    )


def _rail(battery: Path) -> Rail:
    current = battery / "current_now"
    if current.exists():
        return Rail(name=battery.name, factors=(current, battery / "voltage_now"), to_mw=1e-9)
    return Rail(name=battery.name, factors=(battery / "power_now",), to_mw=1e-3)


def _check_discharging(batteries: list[Path], chargers: list[Path]) -> None:
    statuses = [read_text(battery / "status") or "absent" for battery in batteries]
    if "Discharging" not in statuses or "Charging" in statuses:
        raise SensorError(
            f"the status of {batteries[0].parent} is {', '.join(statuses)}; expected Discharging;"
            " unplug the charger"
        )
    online = [charger.name for charger in chargers if (read_integer(charger / "online") or 0) > 0]
    if online:
        raise SensorError(f"{', '.join(online)} takes part of the load off the battery; unplug the charger")
