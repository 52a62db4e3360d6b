from pathlib import Path

import pytest
from sensor_trees import IIO, INA3221, build_iio, build_ina3221, write

from device_agent.errors import SensorError
from device_agent.sensors.jetson_ina3221_hwmon import JetsonHwmon
from device_agent.sensors.jetson_ina3221_iio import JetsonIio

SECOND_IIO = "sys/bus/i2c/drivers/ina3221x/0-0041/iio:device1"
SECOND_INA3221 = "sys/bus/i2c/drivers/ina3221/1-0041/hwmon/hwmon4"


def test_nano_is_its_input_rail_alone(tmp_path: Path):
    build_iio(tmp_path, POM_5V_GPU=40, POM_5V_IN=2532, POM_5V_CPU=451)
    meter = JetsonIio().open(tmp_path)
    assert (meter.read().power_mw, meter.covers) == (2532.0, "POM_5V_IN")


def test_tx2_is_its_input_rail_on_the_second_chip(tmp_path: Path):
    build_iio(tmp_path, VDD_SYS_GPU=152, VDD_SYS_SOC=687, VDD_4V0_WIFI=0)
    build_iio(tmp_path, SECOND_IIO, VDD_IN=3056, VDD_SYS_CPU=152, VDD_SYS_DDR=883)
    meter = JetsonIio().open(tmp_path)
    assert (meter.read().power_mw, meter.covers) == (3056.0, "VDD_IN")


def test_agx_xavier_is_the_sum_of_its_six_rails(tmp_path: Path):
    build_iio(tmp_path, GPU=463, CPU=618, SOC=2936)
    build_iio(tmp_path, SECOND_IIO, CV=0, VDDRQ=309, SYS5V=3306)
    meter = JetsonIio().open(tmp_path)
    assert (meter.read().power_mw, meter.covers) == (7632.0, "GPU + CPU + SOC + CV + VDDRQ + SYS5V")


def test_iio_without_a_power_file_multiplies_voltage_and_current(tmp_path: Path):
    build_iio(tmp_path)
    (tmp_path / IIO / "in_power0_input").unlink()
    assert JetsonIio().open(tmp_path).read().power_mw == 2530.0


def test_agx_orin_leaves_out_the_rail_that_another_contains(tmp_path: Path):
    build_ina3221(tmp_path, VDD_GPU_SOC=160, VDD_CPU_CV=80, VIN_SYS_5V0=640)
    build_ina3221(tmp_path, SECOND_INA3221, NC=0, VDDQ_VDD2_1V8AO=100)
    meter = JetsonHwmon().open(tmp_path)
    assert (meter.read().power_mw, meter.covers) == (4400.0, "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0")


def test_rail_that_is_not_connected_is_not_read(tmp_path: Path):
    build_ina3221(tmp_path, VDD_IN=936, VDD_CPU_GPU_CV=120, NC=0)
    for file in ("in3_input", "curr3_input", "in7_input"):
        (tmp_path / INA3221 / file).unlink()
    assert JetsonHwmon().open(tmp_path).read().power_mw == 4680.0


def test_rails_that_are_all_not_connected_are_no_sensor(tmp_path: Path):
    build_ina3221(tmp_path, NC=500)
    assert "no labelled rail below" in str(JetsonHwmon().absent_reason(tmp_path))


def test_channel_that_is_disabled_is_left_out(tmp_path: Path):
    build_ina3221(tmp_path)
    write(tmp_path, {f"{INA3221}/in1_enable": "0"})
    assert "has the rails VDD_CPU_GPU_CV, VDD_SOC; expected" in str(JetsonHwmon().absent_reason(tmp_path))


@pytest.mark.parametrize(
    ("source", "build"), [(JetsonHwmon(), build_ina3221), (JetsonIio(), build_iio)], ids=["hwmon", "iio"]
)
def test_rails_of_an_unknown_board_are_never_added(source, build, tmp_path: Path):
    build(tmp_path, VDD_CAMERA=400, VDD_MOTOR=900)
    with pytest.raises(SensorError) as caught:
        source.open(tmp_path)
    assert str(caught.value) == (
        "the INA3221 has the rails VDD_CAMERA, VDD_MOTOR; expected VDD_IN, POM_5V_IN or"
        " GPU + CPU + SOC + CV + VDDRQ + SYS5V or VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0;"
        " add an INA226 in the supply line and ask for ina2xx"
    )


def test_noise_of_a_rail_at_rest_cancels_in_the_sum(tmp_path: Path):
    build_ina3221(tmp_path, VDD_GPU_SOC=160, VDD_CPU_CV=-8, VIN_SYS_5V0=640)
    assert JetsonHwmon().open(tmp_path).read().power_mw == 3960.0


def test_driver_that_answers_with_words_is_an_error(tmp_path: Path):
    build_ina3221(tmp_path)
    write(tmp_path, {f"{INA3221}/curr1_input": "936 ma"})
    reason = JetsonHwmon().absent_reason(tmp_path)
    assert reason is not None
    assert reason.endswith("holds '936 ma'; expected a whole number; update the kernel or its driver")
