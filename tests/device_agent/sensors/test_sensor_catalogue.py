from pathlib import Path

import pytest
from sensor_trees import (
    BATTERY,
    INA3221,
    POWERCAP,
    break_file,
    build_battery,
    build_iio,
    build_ina2xx,
    build_ina3221,
    build_nvml,
    build_pmic,
    build_rapl,
    live_rapl,
    write,
)

from device_agent.errors import SensorError
from device_agent.sensors.base import PowerSource
from device_agent.sensors.catalogue import choose, known_sources, passed_over, survey
from device_agent.sensors.rapl import PACKAGES, PSYS
from device_agent.sensors.raspberry_pi_pmic import LinearCalibration

GIFT = """\
from pathlib import Path

from device_agent.sensors.base import Reading, Scope

class Meter:
    covers = "the plug"
    def read(self): return Reading(time_s=1.0, power_mw=4000.0)
    def close(self): pass

class Plug:
    name, scope, calibration = "plug", Scope.INPUT, ""
    def absent_reason(self, root: Path): return None
    def open(self, root: Path): return Meter()

class Dark(Plug):
    name = "dark"
    def absent_reason(self, root): raise PermissionError("/dev/i2c-1")
    def open(self, root): raise OSError("i2c bus\\nis gone")

class Dying(Plug):
    name = "dying"
    def open(self, root): return DyingMeter()

class DyingMeter(Meter):
    def read(self): raise ValueError("no number")
    def close(self): raise OSError("gone")

def broken():
    raise RuntimeError("no licence\\nfor the plug")
"""


def sources_on(root: Path) -> tuple[PowerSource, ...]:
    """Return all sources, with counters that move."""
    counters = (PACKAGES.name, PSYS.name)
    return tuple(live_rapl(source, root) if source.name in counters else source for source in known_sources())


def chosen(root: Path, wanted: str = "", *, on_gpu: bool = False) -> str:
    return choose(root, wanted, sources=sources_on(root), on_gpu=on_gpu).name


def refusal(root: Path, wanted: str = "", *, on_gpu: bool = False) -> str:
    with pytest.raises(SensorError) as caught:
        choose(root, wanted, on_gpu=on_gpu)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution that brings a power source and some that do not work."""
    folder = tmp_path / "site"
    write(
        folder,
        {
            "edgenas_gift.py": GIFT,
            "gift-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: gift\nVersion: 1.0",
            "gift-1.0.dist-info/entry_points.txt": (
                "[edgenas.sensors]\nplug = edgenas_gift:Plug\nclamp = edgenas_gift:broken\n"
                "dark = edgenas_gift:Dark\ndying = edgenas_gift:Dying"
            ),
        },
    )
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize(
    ("builds", "best"),
    [
        ((build_battery, build_rapl, build_ina3221, build_ina2xx), "ina2xx"),
        ((build_battery, build_ina3221), "jetson-hwmon"),
        ((build_battery, build_iio), "jetson-iio"),
        ((build_pmic, build_ina2xx), "ina2xx"),
        ((build_pmic,), "pi-pmic"),
        ((build_battery, build_rapl), "rapl"),
        ((build_battery,), "battery"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_best_source_covers_most(tmp_path: Path, builds, best: str):
    for build in builds:
        build(tmp_path)
    assert chosen(tmp_path) == best


def test_source_that_cannot_be_read_makes_room_for_the_next(tmp_path: Path):
    build_ina2xx(tmp_path, shunt_resistor="0")
    build_rapl(tmp_path)
    assert chosen(tmp_path) == "rapl"


def test_card_is_the_source_of_a_model_that_runs_on_it(tmp_path: Path):
    build_nvml(tmp_path)
    build_rapl(tmp_path)
    assert (chosen(tmp_path), chosen(tmp_path, on_gpu=True)) == ("rapl", "nvml")


def test_card_is_no_source_of_a_model_on_the_processor(tmp_path: Path):
    build_nvml(tmp_path)
    assert "nvml" not in refusal(tmp_path)
    assert chosen(tmp_path, "nvml") == "nvml"


def test_processor_is_no_source_of_a_model_on_a_card(tmp_path: Path):
    build_rapl(tmp_path)
    assert "no power sensor (looked for ina2xx" in refusal(tmp_path, on_gpu=True)


def test_source_that_is_asked_for_is_taken(tmp_path: Path):
    build_battery(tmp_path)
    build_ina2xx(tmp_path)
    assert chosen(tmp_path, "battery") == "battery"


def test_one_of_several_chips_is_asked_for_by_its_address(tmp_path: Path):
    build_ina2xx(tmp_path)
    build_ina2xx(tmp_path, "sys/class/hwmon/hwmon3", "sys/devices/platform/soc/i2c-1/1-0041")
    assert chosen(tmp_path, "ina2xx:1-0041") == "ina2xx:1-0041"


def test_source_that_is_asked_for_and_cannot_be_read_is_refused(tmp_path: Path):
    build_ina2xx(tmp_path)
    build_battery(tmp_path, status="Charging")
    folder = (tmp_path / BATTERY).parent
    assert refusal(tmp_path, "battery") == (
        f"power source 'battery' cannot be read: the status of {folder} is Charging; expected Discharging;"
        " unplug the charger"
    )


@pytest.mark.parametrize("wanted", ["ina226", "battery:BAT0", "ina2xx:"])
def test_source_that_nobody_knows_is_refused_with_those_there_are(tmp_path: Path, wanted: str):
    assert refusal(tmp_path, wanted) == (
        f"no power source {wanted!r}; expected one of ina2xx, jetson-hwmon, jetson-iio, pi-pmic, rapl,"
        " rapl-psys, nvml, battery or modelled"
    )


def test_formula_is_no_sensor(tmp_path: Path):
    assert refusal(tmp_path, "modelled") == (
        "power source 'modelled' is a formula, not a sensor; start the agent with the file of its coefficients,"
        " --energy-model FILE"
    )


def test_formula_is_never_chosen_by_itself():
    assert "modelled" not in [source.name for source in known_sources()]


def test_older_raspberry_pi_is_told_to_add_a_sensor(tmp_path: Path):
    write(tmp_path, {"proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0"})
    assert refusal(tmp_path) == (
        "a Raspberry Pi 4 Model B Rev 1.5 has no power sensor; add an INA219 or INA226 in its supply line"
    )


def test_virtual_machine_is_told_in_short(tmp_path: Path):
    write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm"})
    assert refusal(tmp_path) == "a virtual machine sees no power sensor; measure on the board itself"


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv"])
def test_container_is_told_in_short(tmp_path: Path, mark: str):
    write(tmp_path, {mark: ""})
    assert refusal(tmp_path) == "this container sees no power sensor; run the agent on the board itself"


def test_board_without_any_sensor_is_told_what_was_looked_for(tmp_path: Path):
    assert refusal(tmp_path) == (
        "no power sensor (looked for ina2xx, jetson-hwmon, jetson-iio, pi-pmic, rapl, rapl-psys, battery);"
        " add an INA226 in the supply line"
    )


def test_sensor_that_is_there_is_what_stands_in_the_way(tmp_path: Path):
    write(tmp_path, {"proc/cpuinfo": "flags\t\t: fpu hypervisor"})
    build_battery(tmp_path, status="Full")
    folder = (tmp_path / BATTERY).parent
    assert refusal(tmp_path) == (
        f"no power source can be read: the status of {folder} is Full; expected Discharging; unplug the charger"
    )


def test_sensor_that_opens_and_does_not_read_stands_in_the_way_too(tmp_path: Path):
    build_ina2xx(tmp_path, curr1_input="0")
    assert refusal(tmp_path).startswith(
        "no power source can be read: ina226 at 1-0040, shunt 100000 µΩ reads 0 mW"
    )


def test_counters_that_stand_still_stand_in_the_way(tmp_path: Path):
    build_rapl(tmp_path)
    assert (tmp_path / POWERCAP).is_dir()
    assert "the counter of package-0 + package-1 stands still" in refusal(tmp_path)


def test_survey_tells_of_each_source_whether_it_can_be_read(tmp_path: Path):
    build_battery(tmp_path)
    reasons = {source.name: reason for source, reason in survey(tmp_path)}
    assert [name for name, reason in reasons.items() if reason is None] == ["battery"]
    assert "no INA2xx below" in str(reasons["ina2xx"])


def skipped(root: Path, chosen_name: str | None) -> dict[str, str]:
    """Return what is passed over below root, by name, where another is chosen."""
    sources = sources_on(root)
    chosen = next((source for source in sources if source.name == chosen_name), None)
    return {source.name: reason for source, reason in passed_over(root, chosen, sources=sources)}


def test_better_sensor_that_cannot_be_read_is_passed_over(tmp_path: Path):
    build_ina3221(tmp_path)
    build_battery(tmp_path)
    break_file(tmp_path / INA3221 / "curr1_input")
    assert chosen(tmp_path) == "battery"
    (name, reason), *others = skipped(tmp_path, "battery").items()
    assert (name, others) == ("jetson-hwmon", [])
    assert "curr1_input" in reason


def test_sensor_that_is_no_better_is_not_passed_over(tmp_path: Path):
    build_ina2xx(tmp_path)
    build_battery(tmp_path, status="Charging")
    assert skipped(tmp_path, "ina2xx") == {}


def test_card_is_passed_over_whatever_else_is_read(tmp_path: Path):
    build_ina2xx(tmp_path)
    build_nvml(tmp_path, "0 23500 0 9000000 RTX 3060", "0 9000 0 4000000 RTX 3060")
    assert list(skipped(tmp_path, "ina2xx")) == ["nvml"]
    assert list(skipped(tmp_path, None)) == ["nvml"]


def test_sensors_that_are_not_there_are_not_passed_over(tmp_path: Path):
    assert skipped(tmp_path, "battery") == {}


def test_calibration_reaches_the_raspberry_pi():
    line = LinearCalibration(slope=1.1, intercept_mw=0.0, file="pi5.json")
    calibrations = {source.name: source.calibration for source in known_sources(line)}
    assert calibrations["pi-pmic"] == "1.1 × sum of rails +0 mW (pi5.json)"


@pytest.mark.usefixtures("third_party")
def test_source_of_a_third_party_comes_first(tmp_path: Path):
    build_ina2xx(tmp_path)
    source = choose(tmp_path)
    assert (source.name, source.open(tmp_path).read().power_mw) == ("plug", 4000.0)


@pytest.mark.usefixtures("third_party")
def test_source_of_a_third_party_that_fails_is_told_and_harms_nobody(tmp_path: Path):
    build_ina2xx(tmp_path)
    reasons = {source.name: reason for source, reason in survey(tmp_path)}
    assert reasons["ina2xx"] is None
    assert reasons["clamp"] == (
        r"edgenas_gift:broken fails with RuntimeError('no licence\nfor the plug');"
        " update the package that brings it, or remove it"
    )
    assert "power source 'clamp' cannot be read: edgenas_gift:broken fails" in refusal(tmp_path, "clamp")


REMEDY = "update the package that brings it, or remove it"


@pytest.mark.usefixtures("third_party")
def test_whatever_a_source_of_a_third_party_raises_is_told(tmp_path: Path):
    sources = {source.name: source for source in known_sources()}
    reasons = {source.name: reason for source, reason in survey(tmp_path)}
    assert reasons["dark"] == f"edgenas_gift:Dark fails with PermissionError('/dev/i2c-1'); {REMEDY}"
    with pytest.raises(SensorError, match=r"edgenas_gift:Dark fails with OSError\('i2c bus.*is gone'\)"):
        sources["dark"].open(tmp_path)
    meter = sources["dying"].open(tmp_path)
    with pytest.raises(SensorError, match=r"edgenas_gift:Dying fails with ValueError\('no number'\)"):
        meter.read()
    with pytest.raises(SensorError, match=r"edgenas_gift:Dying fails with OSError"):
        meter.close()
