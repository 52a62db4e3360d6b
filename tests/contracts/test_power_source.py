"""What every registered power source keeps to."""

from pathlib import Path

import pytest
from sensor_trees import TREES, break_file, denied, open_folder

from device_agent.errors import SensorError
from device_agent.sensors.base import PowerSource, Scope, SensorMissingError
from device_agent.sensors.catalogue import known_sources

SOURCES = {source.name: source for source in known_sources()}
every_source = pytest.mark.parametrize("name", SOURCES)


def board(name: str, root: Path) -> PowerSource:
    """Build the tree of a board that has this sensor alone, and return the source that reads it."""
    tree = TREES[name]
    tree.build(root)
    return tree.live(SOURCES[name], root)


def assert_tells_what_to_do(reason: str | None) -> None:
    """A reason is one line that ends with a remedy behind a semicolon."""
    assert reason is not None
    assert "\n" not in reason
    fact, _, remedy = reason.partition("; ")
    assert len(fact) > 10, reason
    assert len(remedy) > 10, reason


def test_every_source_has_a_tree():
    assert set(TREES) == set(SOURCES), "each source needs a tree of its own in tests/sensor_trees.py"


def test_every_source_has_a_name_of_its_own():
    assert len(SOURCES) == len(known_sources())


@every_source
def test_source_with_its_sensor_is_present(name: str, tmp_path: Path):
    assert board(name, tmp_path).absent_reason(tmp_path) is None


@every_source
def test_source_reads_the_power_in_milliwatts(name: str, tmp_path: Path):
    meter = board(name, tmp_path).open(tmp_path)
    assert meter.read().power_mw == pytest.approx(TREES[name].power_mw, abs=0.01)
    meter.close()


@every_source
def test_source_reads_forward_in_time_and_energy(name: str, tmp_path: Path):
    meter = board(name, tmp_path).open(tmp_path)
    readings = [meter.read() for _ in range(3)]
    meter.close()
    times_s = [reading.time_s for reading in readings]
    assert times_s == sorted(times_s)
    energies_mj = [reading.energy_mj for reading in readings if reading.energy_mj is not None]
    assert len(energies_mj) in (0, 3)
    assert energies_mj == sorted(energies_mj)
    assert all(energy_mj >= 0 for energy_mj in energies_mj)


@every_source
def test_source_says_what_it_covers(name: str, tmp_path: Path):
    source = board(name, tmp_path)
    meter = source.open(tmp_path)
    assert isinstance(source.scope, Scope)
    assert meter.covers
    assert "\n" not in meter.covers
    meter.close()


@every_source
def test_source_without_its_sensor_is_missing_and_says_what_to_do(name: str, tmp_path: Path):
    source = SOURCES[name]
    assert_tells_what_to_do(source.absent_reason(tmp_path))
    with pytest.raises(SensorMissingError) as caught:
        source.open(tmp_path)
    assert str(caught.value) == source.absent_reason(tmp_path)


@every_source
def test_sensor_that_dies_half_way_is_an_error(name: str, tmp_path: Path):
    source = board(name, tmp_path)
    meter = source.open(tmp_path)
    meter.read()
    break_file(tmp_path / TREES[name].broken)
    with pytest.raises(SensorError) as caught:
        meter.read()
    meter.close()
    assert not isinstance(caught.value, SensorMissingError)
    assert_tells_what_to_do(str(caught.value))
    assert_tells_what_to_do(source.absent_reason(tmp_path))


@every_source
def test_sensor_that_may_not_be_read_is_there_and_says_so(name: str):
    with open_folder() as root:
        source = board(name, root)
        with denied(root / TREES[name].denied):
            reason = source.absent_reason(root)
    assert_tells_what_to_do(reason)
    assert "right" in str(reason) or "ermission" in str(reason)


@pytest.mark.parametrize("name", [name for name, tree in TREES.items() if tree.reversed])
def test_sensor_whose_current_has_the_other_sign_reads_the_same(name: str, tmp_path: Path):
    source = board(name, tmp_path)
    file = tmp_path / TREES[name].reversed
    file.write_text(f"-{file.read_text()}")
    assert source.open(tmp_path).read().power_mw == pytest.approx(TREES[name].power_mw)


@pytest.mark.parametrize("name", [name for name, tree in TREES.items() if tree.reversed])
def test_sensor_whose_sign_flips_half_way_is_an_error(name: str, tmp_path: Path):
    meter = board(name, tmp_path).open(tmp_path)
    meter.read()
    file = tmp_path / TREES[name].reversed
    file.write_text(f"-{file.read_text()}")
    with pytest.raises(SensorError, match="reversed its direction") as caught:
        meter.read()
    assert_tells_what_to_do(str(caught.value))
