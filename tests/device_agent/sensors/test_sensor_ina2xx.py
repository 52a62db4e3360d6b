from pathlib import Path

import pytest
from sensor_trees import HWMON, I2C_DEVICE, build_ina2xx, write

from device_agent.errors import SensorError
from device_agent.sensors.ina2xx_hwmon import Ina2xx

SECOND_HWMON = "sys/class/hwmon/hwmon3"
SECOND_DEVICE = "sys/devices/platform/soc/i2c-1/1-0041"


def declare_shunt(root: Path, micro_ohm: int, device: str = I2C_DEVICE) -> None:
    """Write the device tree's property as the kernel shows it: one big-endian cell."""
    folder = root / device / "of_node"
    folder.mkdir(parents=True)
    (folder / "shunt-resistor").write_bytes(micro_ohm.to_bytes(4, "big"))


def test_power_of_the_chip_is_preferred_to_a_product(tmp_path: Path):
    build_ina2xx(tmp_path, power1_input="3425000")
    assert Ina2xx().open(tmp_path).read().power_mw == 3425.0


def test_chip_its_address_and_its_shunt_are_told(tmp_path: Path):
    build_ina2xx(tmp_path)
    assert Ina2xx().open(tmp_path).covers == "ina226 at 1-0040, shunt 100000 µΩ"


@pytest.mark.parametrize(
    ("shunt", "found"),
    [("0", "is 0 µΩ"), ("-5", "is -5 µΩ"), ("1000001", "is 1000001 µΩ"), ("99", "is 99 µΩ")],
)
def test_shunt_that_cannot_be_is_refused(tmp_path: Path, shunt: str, found: str):
    build_ina2xx(tmp_path, shunt_resistor=shunt)
    reason = str(Ina2xx().absent_reason(tmp_path))
    file = tmp_path / HWMON / "shunt_resistor"
    assert reason == (
        f"the shunt of the ina226, {file}, {found}; expected 100 to 1000000 µΩ;"
        f" write the real one in µΩ: echo 100000 | sudo tee {file}"
    )


def test_shunt_that_is_absent_is_refused(tmp_path: Path):
    build_ina2xx(tmp_path)
    (tmp_path / HWMON / "shunt_resistor").unlink()
    assert "shunt_resistor, is absent; expected 100 to 1000000 µΩ" in str(Ina2xx().absent_reason(tmp_path))


def test_shunt_that_the_driver_assumes_is_said_to_be(tmp_path: Path):
    build_ina2xx(tmp_path, shunt_resistor="10000")
    assert Ina2xx().open(tmp_path).covers == "ina226 at 1-0040, shunt 10000 µΩ as the driver assumes"


def test_shunt_that_somebody_declared_is_not_assumed(tmp_path: Path):
    build_ina2xx(tmp_path, shunt_resistor="10000")
    declare_shunt(tmp_path, 10_000)
    assert Ina2xx().open(tmp_path).covers == "ina226 at 1-0040, shunt 10000 µΩ"


def test_ina238_has_its_shunt_in_the_device_tree(tmp_path: Path):
    build_ina2xx(tmp_path, name="ina238")
    (tmp_path / HWMON / "shunt_resistor").unlink()
    assert "add shunt-resistor = <100000>;" in str(Ina2xx().absent_reason(tmp_path))
    declare_shunt(tmp_path, 15_000)
    assert Ina2xx().open(tmp_path).covers == "ina238 at 1-0040, shunt 15000 µΩ"


def test_ina260_needs_no_shunt(tmp_path: Path):
    build_ina2xx(tmp_path, name="ina260")
    (tmp_path / HWMON / "shunt_resistor").unlink()
    assert Ina2xx().open(tmp_path).covers == "ina260 at 1-0040, built-in shunt"


def test_another_chip_is_no_ina2xx(tmp_path: Path):
    build_ina2xx(tmp_path, name="cpu_thermal")
    assert "no INA2xx below" in str(Ina2xx().absent_reason(tmp_path))


@pytest.fixture
def two_chips(tmp_path: Path) -> Path:
    build_ina2xx(tmp_path)
    build_ina2xx(tmp_path, SECOND_HWMON, SECOND_DEVICE, name="ina219", curr1_input="900")
    return tmp_path


def test_one_of_two_chips_must_be_named(two_chips: Path):
    with pytest.raises(SensorError) as caught:
        Ina2xx().open(two_chips)
    assert str(caught.value) == (
        "2 INA2xx could be in the supply line; name the one: ina2xx:1-0040, ina2xx:1-0041"
    )


def test_chip_that_is_named_is_read(two_chips: Path):
    source = Ina2xx(chip="1-0041")
    assert (source.name, source.open(two_chips).read().power_mw) == ("ina2xx:1-0041", 4500.0)


def test_chip_that_is_not_there_is_told_with_those_that_are(two_chips: Path):
    assert Ina2xx(chip="1-0045").absent_reason(two_chips) == (
        "no INA2xx at 1-0045; expected one of ina2xx:1-0040, ina2xx:1-0041"
    )


@pytest.mark.parametrize(("current_ma", "found"), [("0", "reads 0 mW"), ("900000", "reads 4.5e+06 mW")])
def test_power_that_no_board_draws_is_refused(tmp_path: Path, current_ma: str, found: str):
    build_ina2xx(tmp_path, curr1_input=current_ma)
    reason = str(Ina2xx().absent_reason(tmp_path))
    assert f"{found}; expected 1 to 1e+06; check that its shunt is in the supply line" in reason


def test_chip_that_goes_away_is_an_error_that_names_the_file(tmp_path: Path):
    build_ina2xx(tmp_path)
    meter = Ina2xx().open(tmp_path)
    (tmp_path / HWMON / "curr1_input").unlink()
    with pytest.raises(SensorError) as caught:
        meter.read()
    assert str(caught.value) == (
        f"cannot read {tmp_path / HWMON / 'curr1_input'}: No such file or directory;"
        " check that the sensor is still connected (dmesg tells)"
    )


def test_reading_follows_the_chip(tmp_path: Path):
    build_ina2xx(tmp_path)
    meter = Ina2xx().open(tmp_path)
    before = meter.read()
    write(tmp_path, {f"{HWMON}/curr1_input": "800"})
    assert (before.power_mw, meter.read().power_mw) == (3500.0, 4000.0)
