"""A tree of files for every power source, with the layout of a real board."""

import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_agent.sensors.base import PowerSource

HWMON = "sys/class/hwmon/hwmon2"
I2C_DEVICE = "sys/devices/platform/soc/i2c-1/1-0040"
IIO = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
INA3221 = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
BATTERY = "sys/class/power_supply/BAT0"
POWERCAP = "sys/class/powercap"
NVML = "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
NVML_STATE = "nvml.txt"
VCGENCMD = "usr/bin/vcgencmd"
PMIC_OUTPUT = "pmic.txt"

# What the 26 lines of a real Raspberry Pi 5 add up to, rail by rail, is 1766.71 mW.
PMIC_LINES = """\
 3V7_WL_SW_A current(0)=0.00195186A
   3V3_SYS_A current(1)=0.12687090A
   1V8_SYS_A current(2)=0.18835450A
  DDR_VDD2_A current(3)=0.02147046A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.17957110A
    0V8_SW_A current(6)=0.25959740A
  VDD_CORE_A current(7)=0.56259000A
   3V3_DAC_A current(17)=0.00000000A
   3V3_ADC_A current(18)=0.00000000A
   0V8_AON_A current(16)=0.00293040A
      HDMI_A current(22)=0.02551890A
 3V7_WL_SW_V volt(8)=3.70720000V
   3V3_SYS_V volt(9)=3.32580900V
   1V8_SYS_V volt(10)=1.80415000V
  DDR_VDD2_V volt(11)=1.11135400V
  DDR_VDDQ_V volt(12)=0.60329610V
   1V1_SYS_V volt(13)=1.11282000V
    0V8_SW_V volt(14)=0.80512740V
  VDD_CORE_V volt(15)=0.76798460V
   3V3_DAC_V volt(20)=3.32142500V
   3V3_ADC_V volt(21)=3.32966700V
   0V8_AON_V volt(19)=0.80175740V
      HDMI_V volt(23)=5.11746000V
     EXT5V_V volt(24)=5.14158000V
      BATT_V volt(25)=3.28033900V
"""

# A library with NVML's real entry points, whose cards are lines of a file:
# code of the power, milliwatts, code of the energy, millijoules, name.
NVML_SOURCE = r"""
#include <stdio.h>
typedef struct { int power_code; unsigned power; int energy_code; unsigned long long energy; char name[64]; } Card;
static Card cards[8];
static int load(void) {
    FILE *file = fopen(STATE, "r");
    int count = 0;
    if (!file) return -1;
    while (count < 8 && fscanf(file, "%d %u %d %llu %63[^\n]", &cards[count].power_code, &cards[count].power,
        &cards[count].energy_code, &cards[count].energy, cards[count].name) == 5) count++;
    if (ferror(file)) count = -1;
    fclose(file);
    return count;
}
int nvmlInit_v2(void) { return load() < 0 ? 9 : 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)load(); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &cards[index]; return 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned size) {
    return snprintf(name, size, "%s", ((Card *)device)->name) < 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *power) {
    if (load() < 0) return 15;
    *power = ((Card *)device)->power; return ((Card *)device)->power_code;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy) {
    if (load() < 0) return 15;
    *energy = ((Card *)device)->energy; return ((Card *)device)->energy_code;
}
const char *nvmlErrorString(int code) {
    return code == 9 ? "Driver Not Loaded" : code == 15 ? "GPU is lost" : "Not Supported";
}
"""


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files below root, each with a line feed at its end as the kernel's have."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def break_file(path: Path) -> None:
    """Make a file fail as one does whose chip no longer answers: it is there, and reading it is an error."""
    path.unlink()
    path.mkdir()


class FakeTime:
    """A clock that moves when somebody waits, and calls `on_wait` with the seconds."""

    def __init__(self, on_wait: Callable[[float], None] = lambda seconds: None) -> None:
        self.now_s = 100.0
        self._on_wait = on_wait

    def clock(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self._on_wait(seconds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SensorTree:
    """How to build a board with one sensor, and what becomes of it.

    `denied` is the file whose rights count, `broken` the one that stops to answer, `reversed` the one that
    has the sign of the current, and `live` gives a source a clock that moves the tree.
    """

    build: Callable[[Path], None]
    power_mw: float
    denied: str
    broken: str
    reversed: str = ""
    live: Callable[[PowerSource, Path], PowerSource] = lambda source, root: source


def build_ina2xx(root: Path, hwmon: str = HWMON, device: str = I2C_DEVICE, **files: str) -> None:
    """An INA226 without `power1_input`, so that the current's sign shows; files are added or replace others."""
    values = {"name": "ina226", "in1_input": "5000", "curr1_input": "700", "shunt_resistor": "100000"}
    write(root, {f"{hwmon}/{name}": text for name, text in (values | files).items()})
    (root / device).mkdir(parents=True, exist_ok=True)
    (root / hwmon / "device").symlink_to(os.path.relpath(root / device, root / hwmon))


def build_iio(root: Path, folder: str = IIO, **power_mw: int) -> None:
    """Rails in their order, with milliwatts at 5 V; without any, those of a Nano."""
    rails = power_mw or {"POM_5V_IN": 2532, "POM_5V_GPU": 40, "POM_5V_CPU": 451}
    for number, (name, power) in enumerate(rails.items()):
        write(
            root,
            {
                f"{folder}/rail_name_{number}": name,
                f"{folder}/in_power{number}_input": str(power),
                f"{folder}/in_voltage{number}_input": "5000",
                f"{folder}/in_current{number}_input": str(power // 5),
            },
        )


def build_ina3221(root: Path, folder: str = INA3221, **current_ma: int) -> None:
    """Channels in their order, with milliamperes at 5 V; without any, those of an Orin NX."""
    rails = current_ma or {"VDD_IN": 936, "VDD_CPU_GPU_CV": 120, "VDD_SOC": 288}
    write(root, {f"{folder}/name": "ina3221"})
    for number, (name, current) in enumerate(rails.items(), start=1):
        write(
            root,
            {
                f"{folder}/in{number}_label": name,
                f"{folder}/in{number}_enable": "1",
                f"{folder}/in{number}_input": "5000",
                f"{folder}/curr{number}_input": str(current),
                f"{folder}/in{number + 3}_input": "1200",
            },
        )
    write(
        root,
        {
            f"{folder}/in7_label": "sum of shunt voltages",
            f"{folder}/in7_input": "3600",
            f"{folder}/curr4_input": "0",
        },
    )


def build_battery(root: Path, folder: str = BATTERY, **files: str) -> None:
    """A battery that supplies a laptop, and its charger, unplugged."""
    values = {
        "type": "Battery",
        "status": "Discharging",
        "present": "1",
        "current_now": "684000",
        "voltage_now": "11000000",
    }
    write(root, {f"{folder}/{name}": text for name, text in (values | files).items()})
    write(root, {"sys/class/power_supply/AC/type": "Mains", "sys/class/power_supply/AC/online": "0"})


def build_rapl(root: Path) -> None:
    """Two packages and a platform counter, and the zones that must not be added to them."""
    zones = {
        "intel-rapl:0": ("package-0", 100_000_000),
        "intel-rapl:0:0": ("core", 60_000_000),
        "intel-rapl:0:1": ("dram", 30_000_000),
        "intel-rapl:1": ("package-1", 200_000_000),
        "intel-rapl:2": ("psys", 700_000_000),
        "intel-rapl-mmio:0": ("package-0", 100_000_000),
    }
    for folder, (name, energy_uj) in zones.items():
        write(
            root,
            {
                f"{POWERCAP}/{folder}/name": name,
                f"{POWERCAP}/{folder}/energy_uj": str(energy_uj),
                f"{POWERCAP}/{folder}/max_energy_range_uj": "262143328850",
            },
        )
    write(root, {f"{POWERCAP}/intel-rapl/enabled": "1"})


def add_energy(root: Path, **uj: int) -> None:
    """Let counters such as `package_0` move on, around their range where they reach it."""
    for folder in root.glob(f"{POWERCAP}/intel-rapl*:*"):
        step_uj = uj.get((folder / "name").read_text().strip().replace("-", "_"), 0)
        range_uj = int((folder / "max_energy_range_uj").read_text())
        energy_uj = int((folder / "energy_uj").read_text()) + step_uj
        (folder / "energy_uj").write_text(f"{energy_uj % range_uj}\n")


def live_rapl(source: PowerSource, root: Path) -> PowerSource:
    """Give RAPL a time of its own, in which a package draws 5 W, the other 3 W and the platform 12 W."""

    def draw(seconds: float) -> None:
        microseconds = round(seconds * 1e6)
        add_energy(root, package_0=5 * microseconds, package_1=3 * microseconds, psys=12 * microseconds)

    time = FakeTime(draw)
    return dataclasses.replace(source, clock=time.clock, wait=time.wait)


def build_nvml(root: Path, *cards: str) -> None:
    """A driver's library and its cards; without any, one that draws 23.5 W and counts its energy."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to make a library with NVML's functions from")
    write(root, {NVML_STATE: "\n".join(cards or ("0 23500 0 9000000 NVIDIA GeForce RTX 3060",))})
    (root / NVML).parent.mkdir(parents=True, exist_ok=True)
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-x",
        "c",
        f'-DSTATE="{root / NVML_STATE}"',
        "-o",
        root / NVML,
        "-",
    ]
    subprocess.run(command, input=NVML_SOURCE, text=True, check=True)


def build_pmic(root: Path, lines: str = PMIC_LINES, model: str = "Raspberry Pi 5 Model B Rev 1.0") -> None:
    """A Raspberry Pi 5 whose firmware answers with some lines."""
    write(root, {PMIC_OUTPUT: lines, "proc/device-tree/model": f"{model}\0"})
    script = f'#!/bin/sh\n[ "$1" = pmic_read_adc ] && exec cat "{root / PMIC_OUTPUT}"\nexit 1'
    write(root, {VCGENCMD: script})
    (root / VCGENCMD).chmod(0o755)


TREES = {
    "ina2xx": SensorTree(
        build=build_ina2xx,
        power_mw=3500.0,
        denied=f"{HWMON}/in1_input",
        broken=f"{HWMON}/curr1_input",
        reversed=f"{HWMON}/curr1_input",
    ),
    "jetson-hwmon": SensorTree(
        build=build_ina3221,
        power_mw=4680.0,
        denied=f"{INA3221}/in1_input",
        broken=f"{INA3221}/curr1_input",
        reversed=f"{INA3221}/curr1_input",
    ),
    "jetson-iio": SensorTree(
        build=build_iio,
        power_mw=2532.0,
        denied=f"{IIO}/in_power0_input",
        broken=f"{IIO}/in_power0_input",
        reversed=f"{IIO}/in_power0_input",
    ),
    "pi-pmic": SensorTree(
        build=build_pmic,
        power_mw=1766.71,
        denied=VCGENCMD,
        broken=PMIC_OUTPUT,
    ),
    "rapl": SensorTree(
        build=build_rapl,
        power_mw=8000.0,
        denied=f"{POWERCAP}/intel-rapl:1/energy_uj",
        broken=f"{POWERCAP}/intel-rapl:1/energy_uj",
        live=live_rapl,
    ),
    "rapl-psys": SensorTree(
        build=build_rapl,
        power_mw=12000.0,
        denied=f"{POWERCAP}/intel-rapl:2/energy_uj",
        broken=f"{POWERCAP}/intel-rapl:2/energy_uj",
        live=live_rapl,
    ),
    "nvml": SensorTree(
        build=build_nvml,
        power_mw=23500.0,
        denied=NVML,
        broken=NVML_STATE,
    ),
    "battery": SensorTree(
        build=build_battery,
        power_mw=7524.0,
        denied=f"{BATTERY}/current_now",
        broken=f"{BATTERY}/voltage_now",
        reversed=f"{BATTERY}/current_now",
    ),
}


@contextmanager
def open_folder() -> Iterator[Path]:
    """Give a folder that every user may enter: the tests' own are their owner's alone."""
    folder = Path(tempfile.mkdtemp(prefix="edgenas-sensors-"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def denied(path: Path) -> Iterator[None]:
    """Take away the right to read a file, from root as well: it becomes somebody else meanwhile."""
    path.chmod(0)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
