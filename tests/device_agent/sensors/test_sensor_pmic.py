import json
from pathlib import Path

import pytest
from sensor_trees import PMIC_OUTPUT, VCGENCMD, build_pmic, write

from device_agent.errors import SensorError
from device_agent.sensors.raspberry_pi_pmic import LinearCalibration, RaspberryPiPmic, read_calibration

LINE = LinearCalibration(slope=1.5, intercept_mw=600.0, file="pi5.json")
TWO_RAILS = """\
 VDD_CORE_A current(7)=2.00000000A
  3V3_SYS_A current(1)=0.10000000A
 VDD_CORE_V volt(15)=0.75000000V
  3V3_SYS_V volt(9)=3.30000000V
    EXT5V_V volt(24)=5.14158000V"""


def test_rails_are_added_and_the_input_voltage_is_none(tmp_path: Path):
    build_pmic(tmp_path, TWO_RAILS)
    meter = RaspberryPiPmic().open(tmp_path)
    assert meter.read().power_mw == pytest.approx(1500 + 330)
    assert meter.covers == "2 PMIC rails, without USB and other 5 V loads"


def test_rails_of_a_real_board_are_twelve(tmp_path: Path):
    build_pmic(tmp_path)
    assert RaspberryPiPmic().open(tmp_path).covers.startswith("12 PMIC rails")


def test_calibration_straightens_the_sum_and_is_named(tmp_path: Path):
    build_pmic(tmp_path, TWO_RAILS)
    source = RaspberryPiPmic(line=LINE)
    assert source.open(tmp_path).read().power_mw == pytest.approx(1.5 * 1830 + 600)
    assert source.calibration == "1.5 × sum of rails +600 mW (pi5.json)"


def test_without_a_calibration_none_is_named():
    assert RaspberryPiPmic().calibration == ""


def test_calibration_that_leaves_no_power_is_an_error(tmp_path: Path):
    build_pmic(tmp_path, TWO_RAILS)
    line = LinearCalibration(slope=1.0, intercept_mw=-2000.0, file="pi5.json")
    assert RaspberryPiPmic(line=line).absent_reason(tmp_path) == (
        "the rails add up to -170 mW; expected more than 0; check the calibration"
    )


@pytest.mark.parametrize(
    "model",
    [
        "Raspberry Pi 4 Model B Rev 1.5",
        "Raspberry Pi 3 Model B Plus Rev 1.3",
        "Raspberry Pi Compute Module 4 Rev 1.0",
    ],
)
def test_older_boards_have_no_such_chip(tmp_path: Path, model: str):
    build_pmic(tmp_path, model=model)
    assert RaspberryPiPmic().absent_reason(tmp_path) == (
        f"a {model} has no power sensor of its own; a Raspberry Pi 5 has one; add an INA219 or INA226 in the"
        " supply line"
    )


@pytest.mark.parametrize("model", ["Raspberry Pi 500 Rev 1.0", "Raspberry Pi Compute Module 5 Rev 1.0"])
def test_boards_with_the_chip_of_a_pi_5_are_read(tmp_path: Path, model: str):
    build_pmic(tmp_path, model=model)
    assert RaspberryPiPmic().absent_reason(tmp_path) is None


def test_firmware_that_does_not_know_the_command_is_told(tmp_path: Path):
    build_pmic(tmp_path, 'error=1 error_msg="Command not registered"')
    assert RaspberryPiPmic().absent_reason(tmp_path) == (
        "vcgencmd pmic_read_adc tells no rails; expected 12; update the firmware: sudo rpi-eeprom-update -a"
    )


def test_tool_that_fails_is_told_with_the_right_it_needs(tmp_path: Path):
    build_pmic(tmp_path)
    (tmp_path / VCGENCMD).write_text("#!/bin/sh\nexit 255\n")
    assert RaspberryPiPmic().absent_reason(tmp_path) == (
        "vcgencmd pmic_read_adc fails; run it by hand, and give the agent's user the right to /dev/vcio:"
        " sudo usermod -aG video USER"
    )


def test_rail_that_goes_away_half_way_is_an_error(tmp_path: Path):
    build_pmic(tmp_path, TWO_RAILS)
    meter = RaspberryPiPmic().open(tmp_path)
    write(tmp_path, {PMIC_OUTPUT: "\n".join(TWO_RAILS.splitlines()[1:])})
    with pytest.raises(SensorError, match="now differs in VDD_CORE; run it by hand"):
        meter.read()


def test_calibration_is_read_from_its_file(tmp_path: Path):
    path = tmp_path / "pi5.json"
    path.write_text('{"slope": 1.5, "intercept_mw": 600}')
    assert read_calibration(path) == LINE


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is not JSON"),
        ("[1.5, 600]", "has list"),
        ("{}", "has nothing"),
        ('{"slope": 1.5}', "has slope"),
        ('{"slope": 1.5, "intercept_mw": 600, "offset": 1}', "has slope, intercept_mw, offset"),
        ('{"slope": "1.5", "intercept_mw": 600}', "has slope = '1.5'"),
        ('{"slope": true, "intercept_mw": 600}', "has slope = True"),
        ('{"slope": NaN, "intercept_mw": 600}', "has slope = nan"),
        ('{"slope": -1, "intercept_mw": 600}', "has slope = -1"),
    ],
)
def test_calibration_that_is_none_is_refused(tmp_path: Path, content: str, problem: str):
    path = tmp_path / "pi5.json"
    path.write_text(content)
    with pytest.raises(SensorError) as caught:
        read_calibration(path)
    assert str(caught.value).startswith(f"{path} {problem}; expected ")


def test_calibration_without_a_file_is_refused(tmp_path: Path):
    with pytest.raises(SensorError, match=r"cannot read .*: No such file or directory; expected a file with"):
        read_calibration(tmp_path / "pi5.json")


def test_calibration_of_whole_numbers_is_the_same(tmp_path: Path):
    path = tmp_path / "pi5.json"
    path.write_text(json.dumps({"slope": 2, "intercept_mw": 0}))
    assert str(read_calibration(path)) == "2 × sum of rails +0 mW (pi5.json)"
