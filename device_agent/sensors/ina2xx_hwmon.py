"""An INA219, INA226, INA238 or one of their kin in the supply line of any board, through the kernel's hwmon.

    $ cd /sys/class/hwmon/hwmon2; grep . name power1_input in1_input curr1_input shunt_resistor
    name:ina226
    power1_input:3425000           µW
    in1_input:5088                 mV
    curr1_input:673                mA
    shunt_resistor:100000          µΩ
    $ readlink -f device
    /sys/devices/platform/axi/1000120000.pcie/1f00074000.i2c/i2c-1/1-0040

To bring one up: echo ina226 0x40 | sudo tee /sys/bus/i2c/devices/i2c-1/new_device, and then the value of its
shunt: echo 100000 | sudo tee /sys/class/hwmon/hwmonN/shunt_resistor (a resistor marked R100 has 0.1 Ω). The
driver takes 10,000 µΩ where nobody tells it, which is wrong by a factor of ten on the usual breakout board.
The driver of the INA228, INA237 and INA238 has no such file: it takes the value from the device tree alone.

Source: docs.kernel.org/hwmon/ina2xx.html, docs.kernel.org/hwmon/ina238.html, drivers/hwmon/ina2xx.c.
"""

from dataclasses import dataclass, field
from pathlib import Path

from device_agent.board.files import read_integer, read_text
from device_agent.errors import SensorError
from device_agent.sensors.base import PowerMeter, Scope, SensorMissingError, trial_reading
from device_agent.sensors.rails import Rail, RailMeter

WITH_SHUNT_FILE = frozenset({"ina219", "ina220", "ina226", "ina230", "ina231", "ina232", "ina234"})
WITH_SHUNT_IN_DEVICE_TREE = frozenset({"ina228", "ina237", "ina238"})
WITH_SHUNT_INSIDE = frozenset({"ina260"})
CHIPS = WITH_SHUNT_FILE | WITH_SHUNT_IN_DEVICE_TREE | WITH_SHUNT_INSIDE

DEFAULT_SHUNT_UOHM = 10_000
# Below, the drop drowns in the chip's offset of some µV; above, a board would not start behind it.
PLAUSIBLE_SHUNT_UOHM = range(100, 1_000_001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ina2xx:
    """Whatever hangs behind the shunt: the whole board where the chip is in its supply line.

    Attributes:
        chip: I2C device to take, e.g. `1-0040`; empty for the only one.
    """

    chip: str = ""
    scope: Scope = field(default=Scope.INPUT, init=False)
    calibration: str = field(default="", init=False)

    @property
    def name(self) -> str:
        """`ina2xx`, and the chip if one was asked for: `ina2xx:1-0040`."""
        return f"ina2xx:{self.chip}" if self.chip else "ina2xx"

    def absent_reason(self, root: Path) -> str | None:
        """Return why there is no reading; None where there is one."""
        return trial_reading(self, root)

    def open(self, root: Path) -> PowerMeter:
        """Return a meter of one chip.

        Raises:
            SensorMissingError: If there is none.
            SensorError: If several could be meant, or the shunt's resistance is unknown.
        """
        folder = self._folder(root)
        chip, power = read_text(folder / "name"), folder / "power1_input"
        if power.exists():
            rail = Rail(name="power1", factors=(power,), to_mw=1e-3)
        else:
            rail = Rail(name="in1", factors=(folder / "in1_input", folder / "curr1_input"), to_mw=1e-3)
        return RailMeter([rail], f"{chip} at {_address(folder)}, {_shunt(folder, str(chip))}")

    def _folder(self, root: Path) -> Path:
        folders = sorted(root.glob("sys/class/hwmon/hwmon*"))
        found = {_address(folder): folder for folder in folders if read_text(folder / "name") in CHIPS}
        if not found:
            raise SensorMissingError(
                f"no INA2xx below {root / 'sys/class/hwmon'}; add an INA226 in the supply line and tell the"
                " kernel: echo ina226 0x40 | sudo tee /sys/bus/i2c/devices/i2c-1/new_device"
            )
        if self.chip in found:
            return found[self.chip]
        names = ", ".join(f"ina2xx:{address}" for address in found)
        if self.chip:
            raise SensorError(f"no INA2xx at {self.chip}; expected one of {names}")
        if len(found) > 1:
            raise SensorError(f"{len(found)} INA2xx could be in the supply line; name the one: {names}")
        return next(iter(found.values()))


def _address(folder: Path) -> str:
    # hwmonN is numbered anew at every boot; the I2C address stays.
    return (folder / "device").resolve().name if (folder / "device").exists() else folder.name


def _shunt(folder: Path, chip: str) -> str:
    """Return the shunt's resistance for a person; raise SensorError where it cannot be right."""
    if chip in WITH_SHUNT_INSIDE:
        return "built-in shunt"
    declared = _declared_uohm(folder)
    value, file = read_integer(folder / "shunt_resistor"), folder / "shunt_resistor"
    remedy = f"write the real one in µΩ: echo 100000 | sudo tee {file}"
    if chip in WITH_SHUNT_IN_DEVICE_TREE:
        value, file = declared, folder / "device/of_node/shunt-resistor"
        remedy = (
            f"add shunt-resistor = <100000>; (the real value in µΩ) to the device tree's node of the {chip}"
        )
    if value not in PLAUSIBLE_SHUNT_UOHM:
        low, high = PLAUSIBLE_SHUNT_UOHM.start, PLAUSIBLE_SHUNT_UOHM.stop - 1
        found = "is absent" if value is None else f"is {value} µΩ"
        raise SensorError(f"the shunt of the {chip}, {file}, {found}; expected {low} to {high} µΩ; {remedy}")
    caveat = " as the driver assumes" if value == DEFAULT_SHUNT_UOHM and declared is None else ""
    return f"shunt {value} µΩ{caveat}"


def _declared_uohm(folder: Path) -> int | None:
    """Return what the device tree says: one big-endian cell of 32 bits."""
    try:
        cell = (folder / "device/of_node/shunt-resistor").read_bytes()
    except OSError:
        return None
    return int.from_bytes(cell, "big") if len(cell) == 4 else None
