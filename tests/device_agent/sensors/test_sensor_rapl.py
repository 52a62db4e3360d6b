import dataclasses
from pathlib import Path

import pytest
from sensor_trees import POWERCAP, FakeTime, add_energy, build_rapl, denied, open_folder, write

from device_agent.errors import SensorError
from device_agent.sensors.rapl import PACKAGES, PSYS, RaplMeter


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build_rapl(tmp_path)
    return tmp_path


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def opened(root: Path, time: FakeTime) -> RaplMeter:
    meter = dataclasses.replace(PACKAGES, clock=time.clock, wait=time.wait).open(root)
    assert isinstance(meter, RaplMeter)
    return meter


def test_packages_are_added_and_their_parts_are_not(root: Path, time: FakeTime):
    meter = opened(root, time)
    add_energy(root, package_0=400_000, package_1=100_000, core=999_000, dram=999_000, psys=999_000)
    assert (meter.read().energy_mj, meter.covers) == (500.0, "package-0 + package-1")


def test_part_of_a_package_is_none_whatever_its_name(root: Path):
    write(root, {f"{POWERCAP}/intel-rapl:0:0/name": "package-7"})
    assert PACKAGES.open(root).covers == "package-0 + package-1"


def test_dies_of_a_package_are_packages(root: Path):
    write(root, {f"{POWERCAP}/intel-rapl:1/name": "package-0-die-1"})
    assert PACKAGES.open(root).covers == "package-0 + package-0-die-1"


def test_platform_counter_is_a_source_of_its_own(root: Path):
    assert PSYS.open(root).covers == "psys"


def test_energy_counts_from_the_opening_on(root: Path, time: FakeTime):
    add_energy(root, package_0=5_000_000)
    meter = opened(root, time)
    add_energy(root, package_0=2_000)
    first = meter.read()
    time.now_s += 1
    add_energy(root, package_0=3_000)
    assert (first.energy_mj, meter.read().energy_mj) == (2.0, 5.0)


def test_counter_that_wraps_goes_on(root: Path, time: FakeTime):
    write(root, {f"{POWERCAP}/intel-rapl:0/energy_uj": "262143328000"})
    meter = opened(root, time)
    add_energy(root, package_0=700)
    before = meter.read().energy_mj
    time.now_s += 1
    # 262143328700 + 1150 is 1000 beyond the range.
    add_energy(root, package_0=1_150)
    after = meter.read()
    assert (before, after.energy_mj) == (0.7, 1.85)
    assert (root / POWERCAP / "intel-rapl:0/energy_uj").read_text() == "1000\n"
    assert after.power_mw == pytest.approx(1.15)


def test_power_is_the_mean_over_the_stretch_before(root: Path, time: FakeTime):
    meter = opened(root, time)
    add_energy(root, package_0=500_000)
    meter.read()
    time.now_s += 0.5
    add_energy(root, package_0=3_000_000)
    assert meter.read().power_mw == pytest.approx(6000.0)


def test_power_of_a_stretch_too_short_is_the_one_before(root: Path, time: FakeTime):
    meter = opened(root, time)
    add_energy(root, package_0=500_000)
    first = meter.read()
    time.now_s += 0.001
    add_energy(root, package_0=900_000)
    second = meter.read()
    assert first.power_mw == pytest.approx(10_000.0)
    assert second.power_mw == first.power_mw
    assert (first.energy_mj, second.energy_mj) == (500.0, 1400.0)


def test_first_reading_waits_for_a_stretch_to_average_over(root: Path, time: FakeTime):
    meter = opened(root, time)
    add_energy(root, package_0=1)
    assert meter.read().time_s == pytest.approx(100.05)


def test_counter_that_never_moves_is_an_error(root: Path, time: FakeTime):
    with pytest.raises(SensorError) as caught:
        opened(root, time).read()
    assert str(caught.value) == (
        "the counter of package-0 + package-1 stands still for 0.05 s; this machine does not count its energy;"
        " use another power source"
    )


def test_counter_that_stops_is_an_error_after_a_second(root: Path, time: FakeTime):
    meter = opened(root, time)
    add_energy(root, package_0=500_000)
    meter.read()
    time.now_s += 0.9
    assert meter.read().energy_mj == 500.0
    time.now_s += 0.2
    with pytest.raises(SensorError, match=r"stands still for 1\.10 s"):
        meter.read()


def test_counter_that_was_reset_is_not_taken_for_one_that_wrapped(root: Path, time: FakeTime):
    meter = opened(root, time)
    add_energy(root, package_0=500_000)
    meter.read()
    write(root, {f"{POWERCAP}/intel-rapl:0/energy_uj": "0"})
    time.now_s += 1
    with pytest.raises(SensorError, match="it was reset meanwhile"):
        meter.read()


def test_reason_says_how_to_grant_the_right():
    with open_folder() as root:
        build_rapl(root)
        with denied(root / POWERCAP / "intel-rapl:0/energy_uj"):
            reason = str(PACKAGES.absent_reason(root))
    assert "run the agent as root or grant it: sudo chmod a+r /sys/class/powercap/intel-rapl:*" in reason
    assert 'udev rule SUBSYSTEM=="powercap"' in reason


def test_virtual_machine_without_the_counter_is_missing_it(tmp_path: Path):
    (tmp_path / POWERCAP / "intel-rapl").mkdir(parents=True)
    assert "outside of virtual machines" in str(PACKAGES.absent_reason(tmp_path))
