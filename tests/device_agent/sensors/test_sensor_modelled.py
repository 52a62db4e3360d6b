from pathlib import Path

import pytest

from device_agent.errors import SensorError
from device_agent.sensors.modelled import EnergyModel, read_energy_model

MODEL = EnergyModel(picojoules_per_mac=40.0, picojoules_per_byte=500.0, file="pi4.json")


def test_energy_is_macs_and_bytes_times_their_coefficients():
    # 300 million MACs at 40 pJ are 12 mJ; 14 million bytes at 500 pJ are 7 mJ.
    assert MODEL.energy_mj(macs=300_000_000, model_bytes=14_000_000) == pytest.approx(19.0)


@pytest.mark.parametrize("macs", [None, 0])
def test_energy_of_macs_that_nobody_counted_is_refused(macs: int | None):
    with pytest.raises(SensorError, match="needs the multiply-accumulates of the model"):
        MODEL.energy_mj(macs=macs, model_bytes=14_000_000)


def test_formula_is_told_with_its_file():
    assert str(MODEL) == "40 pJ/MAC + 500 pJ/byte (pi4.json)"


def test_formula_is_read_from_its_file(tmp_path: Path):
    path = tmp_path / "pi4.json"
    path.write_text('{"picojoules_per_mac": 40, "picojoules_per_byte": 500}')
    assert read_energy_model(path) == MODEL


@pytest.mark.parametrize(("per_mac", "per_byte"), [(-1, 500), (40, -1), (0, 0)])
def test_formula_without_energy_in_it_is_refused(tmp_path: Path, per_mac: float, per_byte: float):
    path = tmp_path / "pi4.json"
    path.write_text(f'{{"picojoules_per_mac": {per_mac}, "picojoules_per_byte": {per_byte}}}')
    with pytest.raises(SensorError, match="has no energy in it; expected coefficients of 0 or more"):
        read_energy_model(path)


def test_formula_with_another_key_is_refused(tmp_path: Path):
    path = tmp_path / "pi4.json"
    path.write_text('{"joules_per_mac": 4e-11, "picojoules_per_byte": 500}')
    with pytest.raises(SensorError) as caught:
        read_energy_model(path)
    assert str(caught.value) == (
        f"{path} has joules_per_mac, picojoules_per_byte;"
        ' expected {"picojoules_per_mac": NUMBER, "picojoules_per_byte": NUMBER}'
    )
