from pathlib import Path

import pytest
from sensor_trees import BATTERY, build_battery, write

from device_agent.errors import SensorError
from device_agent.sensors.battery import Battery

SUPPLIES = "sys/class/power_supply"


def test_current_times_voltage_is_the_power(tmp_path: Path):
    build_battery(tmp_path, current_now="-684000", voltage_now="11873000")
    assert Battery().open(tmp_path).read().power_mw == pytest.approx(8121.132)


def test_battery_without_a_current_tells_its_power(tmp_path: Path):
    build_battery(tmp_path, power_now="8120000")
    (tmp_path / BATTERY / "current_now").unlink()
    assert Battery().open(tmp_path).read().power_mw == pytest.approx(8120.0)


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_battery_that_is_not_the_supply_is_no_sensor(tmp_path: Path, status: str):
    build_battery(tmp_path, status=status)
    assert Battery().absent_reason(tmp_path) == (
        f"the status of {tmp_path / SUPPLIES} is {status}; expected Discharging; unplug the charger"
    )


def test_charger_that_is_plugged_in_half_way_is_an_error(tmp_path: Path):
    build_battery(tmp_path)
    meter = Battery().open(tmp_path)
    meter.read()
    write(tmp_path, {f"{BATTERY}/status": "Charging"})
    with pytest.raises(SensorError, match="is Charging; expected Discharging; unplug the charger"):
        meter.read()


def test_weak_charger_takes_part_of_the_load(tmp_path: Path):
    build_battery(tmp_path)
    write(tmp_path, {f"{SUPPLIES}/usb/type": "USB", f"{SUPPLIES}/usb/online": "1"})
    assert Battery().absent_reason(tmp_path) == (
        "usb takes part of the load off the battery; unplug the charger"
    )


def test_battery_of_a_mouse_is_none_of_the_board(tmp_path: Path):
    build_battery(tmp_path, scope="Device")
    assert "no battery below" in str(Battery().absent_reason(tmp_path))


def test_empty_bay_is_no_battery(tmp_path: Path):
    build_battery(tmp_path, present="0")
    assert "no battery below" in str(Battery().absent_reason(tmp_path))


def test_two_batteries_are_added_while_one_of_them_rests(tmp_path: Path):
    build_battery(tmp_path)
    build_battery(tmp_path, f"{SUPPLIES}/BAT1", status="Not charging", current_now="0")
    meter = Battery().open(tmp_path)
    assert (meter.read().power_mw, meter.covers) == (pytest.approx(7524.0), "BAT0 + BAT1")


def test_two_batteries_of_which_one_charges_the_other_are_no_sensor(tmp_path: Path):
    build_battery(tmp_path)
    build_battery(tmp_path, f"{SUPPLIES}/BAT1", status="Charging", current_now="300000")
    assert "is Discharging, Charging; expected Discharging" in str(Battery().absent_reason(tmp_path))


def test_driver_that_tells_milliamperes_is_refused(tmp_path: Path):
    build_battery(tmp_path, current_now="-84", voltage_now="3900000")
    assert "BAT0 reads -0.3276 mW; expected 1 to 1e+06" in str(Battery().absent_reason(tmp_path))
