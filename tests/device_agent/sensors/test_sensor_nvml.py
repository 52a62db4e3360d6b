from pathlib import Path

import pytest
from sensor_trees import NVML, NVML_STATE, build_nvml, write

from device_agent.errors import SensorError
from device_agent.sensors.nvml import Nvml


def test_energy_is_counted_from_the_opening_on(tmp_path: Path):
    build_nvml(tmp_path, "0 23500 0 9000000 NVIDIA GeForce RTX 3060")
    meter = Nvml().open(tmp_path)
    write(tmp_path, {NVML_STATE: "0 170000 0 9000450 NVIDIA GeForce RTX 3060"})
    reading = meter.read()
    meter.close()
    assert (reading.power_mw, reading.energy_mj) == (170_000.0, 450.0)


def test_card_is_named(tmp_path: Path):
    build_nvml(tmp_path, "0 23500 0 9000000 NVIDIA GeForce RTX 3060")
    meter = Nvml().open(tmp_path)
    assert meter.covers.split() == ["NVIDIA", "GeForce", "RTX", "3060", "(GPU", "0)"]
    meter.close()


def test_card_before_volta_has_power_alone(tmp_path: Path):
    build_nvml(tmp_path, "0 23500 3 0 NVIDIA GeForce GTX 1080")
    meter = Nvml().open(tmp_path)
    reading = meter.read()
    meter.close()
    assert (reading.power_mw, reading.energy_mj) == (23_500.0, None)


def test_card_without_a_power_sensor_says_so(tmp_path: Path):
    build_nvml(tmp_path, "3 0 3 0 NVIDIA GeForce GT 710")
    assert Nvml().absent_reason(tmp_path) == (
        "nvmlDeviceGetPowerUsage failed: Not Supported; check with nvidia-smi"
    )


def test_energy_counter_that_falls_back_is_an_error(tmp_path: Path):
    build_nvml(tmp_path)
    meter = Nvml().open(tmp_path)
    write(tmp_path, {NVML_STATE: "0 23500 0 12 NVIDIA GeForce RTX 3060"})
    with pytest.raises(SensorError, match="was reset; measure again"):
        meter.read()
    meter.close()


def test_driver_that_is_not_loaded_says_so(tmp_path: Path):
    build_nvml(tmp_path)
    (tmp_path / NVML_STATE).unlink()
    assert Nvml().absent_reason(tmp_path) == "nvmlInit_v2 failed: Driver Not Loaded; check with nvidia-smi"


def test_driver_without_a_card_says_so(tmp_path: Path):
    build_nvml(tmp_path)
    write(tmp_path, {NVML_STATE: ""})
    assert Nvml().absent_reason(tmp_path) == "NVIDIA's driver finds no card; check with nvidia-smi"


def test_library_that_cannot_be_loaded_says_so(tmp_path: Path):
    write(tmp_path, {NVML: "not a library"})
    reason = str(Nvml().absent_reason(tmp_path))
    assert reason.startswith(f"cannot load {tmp_path / NVML}: ")
    assert reason.endswith("; reinstall NVIDIA's driver")


@pytest.fixture
def two_cards(tmp_path: Path) -> Path:
    build_nvml(tmp_path, "0 10000 0 5 NVIDIA T400", "0 60000 0 7 NVIDIA A100")
    return tmp_path


def test_one_of_two_cards_must_be_named(two_cards: Path):
    assert Nvml().absent_reason(two_cards) == (
        "2 graphics cards could run the model; name the one: nvml:0, nvml:1"
    )


def test_card_that_is_named_is_read(two_cards: Path):
    source = Nvml(index="1")
    meter = source.open(two_cards)
    assert (source.name, meter.read().power_mw) == ("nvml:1", 60_000.0)
    meter.close()


@pytest.mark.parametrize("index", ["2", "-1", "A100"])
def test_card_that_is_not_there_is_told_with_those_that_are(two_cards: Path, index: str):
    assert Nvml(index=index).absent_reason(two_cards) == (
        f"no graphics card {index!r}; expected one of nvml:0, nvml:1"
    )
