from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from sensor_trees import FakeTime

from device_agent.errors import SensorError
from device_agent.measuring.energy import EnergyPass, InferenceWindow, integrate
from device_agent.sensors.base import Reading, Scope

IDLE_MW = 3000.0
ACTIVE_MW = 5000.0


@dataclass(frozen=True)
class Source:
    name: str = "ina2xx"
    scope: Scope = Scope.INPUT
    calibration: str = "1.1 × sum (mine.json)"


@dataclass
class FakeMeter:
    """A meter of a power that depends on the time; it gives a new value every `period_s`."""

    time: FakeTime
    power_mw: Callable[[float], float]
    period_s: float = 0.001
    read_s: float = 0.0005
    counts: bool = False
    dies_at_s: float = float("inf")
    covers: str = "a supply line"
    read_at_s: list[float] = field(default_factory=list)

    def read(self) -> Reading:
        self.time.now_s += self.read_s
        now_s = self.time.now_s
        if now_s > self.dies_at_s:
            raise SensorError("cannot read in1_input: Input/output error; check the wiring")
        self.read_at_s.append(now_s)
        step = int(now_s / self.period_s)
        # A thousandth of ripple: a real sensor never gives the same value twice for long.
        power_mw = self.power_mw(step * self.period_s) * (1 + 0.0001 * (step * 7919 % 11))
        return Reading(time_s=now_s, power_mw=power_mw, energy_mj=self._energy_mj() if self.counts else None)

    def close(self) -> None:
        raise AssertionError("the meter's owner closes it")

    def _energy_mj(self) -> float:
        times_s = [100.0, *self.read_at_s]
        return sum(self.power_mw(before) * (after - before) for before, after in pairwise(times_s))


class Laboratory:
    """A board that draws more while a worker runs inferences, each of 20 ms."""

    def __init__(
        self,
        idle_mw: float = IDLE_MW,
        active_mw: float = ACTIVE_MW,
        deadline_s: float = float("inf"),
        **meter: object,
    ) -> None:
        self.time = FakeTime()
        self.begin_s = self.end_s = float("inf")
        self.idle_mw, self.active_mw = idle_mw, active_mw
        self.meter = FakeMeter(self.time, self.power_mw, **meter)
        self.energy = EnergyPass(
            self.meter, deadline_s=deadline_s, clock=self.time.clock, wait=self.time.wait
        )

    def power_mw(self, time_s: float) -> float:
        return self.active_mw if self.begin_s <= time_s < self.end_s else self.idle_mw

    def run(self) -> InferenceWindow:
        self.energy.idle()
        self.begin_s = self.time.now_s
        self.energy.sample_while(lambda: self.energy.wants_more(self.begin_s))
        self.end_s = self.time.now_s
        self.energy.idle()
        inferences = round((self.end_s - self.begin_s) / 0.02)
        return InferenceWindow(begin_s=self.begin_s, end_s=self.end_s, inferences=inferences)

    def refusal(self, window: InferenceWindow) -> str:
        with pytest.raises(SensorError) as caught:
            self.energy.result(window, Source())
        assert "\n" not in str(caught.value)
        return str(caught.value)


def powers(*points: tuple[float, float]) -> list[Reading]:
    return [Reading(time_s=time_s, power_mw=power_mw) for time_s, power_mw in points]


def counts(*points: tuple[float, float]) -> list[Reading]:
    return [Reading(time_s=time_s, power_mw=9e9, energy_mj=energy_mj) for time_s, energy_mj in points]


def test_energy_of_a_constant_power_is_power_times_time():
    assert integrate(powers((0, 2000), (1, 2000), (4, 2000)), 0, 4) == 8000


def test_energy_of_a_ramp_is_the_area_below_it():
    assert integrate(powers((0, 0), (2, 1000)), 0, 2) == 1000


def test_edges_between_readings_are_interpolated():
    # From 250 mW at 0.5 s to 750 mW at 1.5 s.
    assert integrate(powers((0, 0), (2, 1000)), 0.5, 1.5) == 500


def test_readings_outside_the_window_do_not_count():
    readings = powers((0, 9000), (1, 1000), (2, 1000), (3, 9000))
    assert integrate(readings, 1, 2) == 1000


def test_readings_need_not_be_evenly_spaced():
    assert integrate(powers((0, 0), (1, 1000), (4, 1000)), 0, 4) == 3500


def test_counter_gives_its_difference_whatever_the_power():
    assert integrate(counts((0, 100), (1, 700), (4, 1000)), 0, 4) == 900


def test_counter_is_interpolated_at_the_edges():
    assert integrate(counts((0, 0), (2, 1000), (4, 3000)), 1, 3) == 1500


@pytest.mark.parametrize(("begin_s", "end_s"), [(-1, 1), (1, 3), (1, 1), (2, 1)])
def test_window_that_the_readings_do_not_cover_has_no_energy(begin_s: float, end_s: float):
    with pytest.raises(ValueError, match=r"is not within the readings, 0 to 2 s"):
        integrate(powers((0, 1), (2, 1)), begin_s, end_s)


def test_window_without_readings_has_no_energy():
    with pytest.raises(ValueError, match="is not within the readings, nothing"):
        integrate([], 0, 1)


@pytest.mark.parametrize("counting", [False, True], ids=["power", "counter"])
def test_pass_tells_gross_and_net_energy_of_one_inference(counting: bool):
    laboratory = Laboratory(counts=counting)
    reading = laboratory.energy.result(laboratory.run(), Source())
    # 20 ms at 5000 mW are 100 mJ, of which 20 ms at 3000 mW were drawn anyway.
    assert reading.gross_mj == pytest.approx(100, rel=0.005)
    assert reading.net_mj == pytest.approx(40, rel=0.01)
    assert reading.idle_mw == pytest.approx(3000, rel=0.002)
    assert reading.active_mw == pytest.approx(5000, rel=0.005)


def test_pass_names_its_source():
    laboratory = Laboratory()
    window = laboratory.run()
    reading = laboratory.energy.result(window, Source())
    assert (reading.source, reading.scope, reading.calibration) == (
        "ina2xx",
        "input",
        "1.1 × sum (mine.json)",
    )
    assert (reading.inferences, reading.modelled) == (window.inferences, False)


def test_pass_takes_ten_seconds_of_inference_between_five_of_idle():
    laboratory = Laboratory()
    window = laboratory.run()
    assert window.begin_s - 100 == pytest.approx(1 + 5, abs=0.05)
    assert window.end_s - window.begin_s == pytest.approx(10, abs=0.05)
    assert laboratory.time.now_s - window.end_s == pytest.approx(1 + 5, abs=0.05)


def test_slow_sensor_is_given_the_time_for_fifty_new_values():
    laboratory = Laboratory(period_s=0.5)
    window = laboratory.run()
    reading = laboratory.energy.result(window, Source())
    assert window.end_s - window.begin_s == pytest.approx(25, abs=0.6)
    assert reading.updates_per_s == pytest.approx(2, rel=0.05)


def test_rate_counts_new_values_and_not_readings():
    laboratory = Laboratory(period_s=0.1)
    reading = laboratory.energy.result(laboratory.run(), Source())
    assert len(laboratory.meter.read_at_s) > 900
    assert reading.updates_per_s == pytest.approx(10, rel=0.03)


def test_sensor_too_slow_for_a_minute_gives_no_energy():
    laboratory = Laboratory(period_s=2.0)
    window = laboratory.run()
    assert window.end_s - window.begin_s == pytest.approx(60, abs=0.1)
    assert laboratory.refusal(window) == (
        "ina2xx gave 30 new values in 60 s; expected 50; use a faster sensor, e.g. an INA226"
    )


@pytest.mark.parametrize("dies_at_s", [103.0, 109.0, 119.0], ids=["idle", "active", "idle again"])
def test_sensor_that_dies_half_way_ends_the_pass(dies_at_s: float):
    with pytest.raises(SensorError, match="Input/output error; check the wiring"):
        Laboratory(dies_at_s=dies_at_s).run()


def test_load_that_draws_no_more_than_idle_has_no_energy():
    laboratory = Laboratory(active_mw=2990.0)
    assert laboratory.refusal(laboratory.run()).startswith(
        "inference does not draw measurably more than idle: 2991 mW after 3002 ± "
    )


def test_load_within_the_noise_of_idle_has_no_energy():
    laboratory = Laboratory(active_mw=3050.0)
    quiet = laboratory.power_mw
    # Every second the idle power is another: 2700, 3000 or 3300 mW.
    laboratory.meter.power_mw = lambda time_s: quiet(time_s) + 300 * (int(time_s) % 3 - 1)
    assert "inference does not draw measurably more than idle" in laboratory.refusal(laboratory.run())


def test_idle_that_drifts_is_not_taken_for_inference():
    laboratory = Laboratory(active_mw=3250.0)
    quiet = laboratory.power_mw
    laboratory.meter.power_mw = lambda time_s: quiet(time_s) + (200 if time_s > laboratory.end_s else 0)
    # Before 3000 mW, after 3200 mW: 3100 ± 2 × 100, though the blocks' own scatter would say ± 70.
    assert "inference does not draw measurably more than idle" in laboratory.refusal(laboratory.run())


def test_small_load_above_a_quiet_idle_is_measured():
    laboratory = Laboratory(active_mw=3020.0)
    reading = laboratory.energy.result(laboratory.run(), Source())
    assert reading.net_mj == pytest.approx(20 * 0.02, rel=0.25)


def test_settling_after_the_inferences_is_not_idle():
    laboratory = Laboratory()
    quiet = laboratory.power_mw
    # The board takes 0.9 s to slow down its clock.
    laboratory.meter.power_mw = lambda time_s: (
        ACTIVE_MW if 0 <= time_s - laboratory.end_s < 0.9 else quiet(time_s)
    )
    reading = laboratory.energy.result(laboratory.run(), Source())
    assert reading.idle_mw == pytest.approx(3000, rel=0.002)


@pytest.mark.parametrize("read_s", [0.0005, 0.005, 0.02], ids=["fast", "bus", "process"])
def test_reading_takes_a_twentieth_of_the_time_at_most(read_s: float):
    laboratory = Laboratory(read_s=read_s)
    window = laboratory.run()
    share = len(laboratory.meter.read_at_s) * read_s / (laboratory.time.now_s - 100)
    assert share < 0.055
    assert laboratory.energy.result(window, Source()).net_mj == pytest.approx(40, rel=0.02)


def test_reading_that_takes_long_is_still_done_twice_a_second():
    laboratory = Laboratory(read_s=0.1)
    laboratory.energy.idle()
    assert len(laboratory.meter.read_at_s) == pytest.approx(10, abs=2)


def test_agent_that_did_not_get_to_read_gives_no_energy():
    laboratory = Laboratory()
    laboratory.energy.idle()
    laboratory.begin_s = laboratory.time.now_s
    laboratory.energy.sample_while(lambda: laboratory.time.now_s < laboratory.begin_s + 6)
    laboratory.time.now_s += 3
    laboratory.energy.sample_while(lambda: laboratory.energy.wants_more(laboratory.begin_s))
    laboratory.end_s = laboratory.time.now_s
    laboratory.energy.idle()
    window = InferenceWindow(begin_s=laboratory.begin_s, end_s=laboratory.end_s, inferences=500)
    assert laboratory.refusal(window) == (
        "the power meter was not read for 3.0 s; expected 2 s at most; stop what else runs on the board"
    )


def test_pause_before_the_inferences_is_nothing_missed():
    laboratory = Laboratory()
    laboratory.energy.idle()
    laboratory.time.now_s += 30
    laboratory.energy.sample_while(lambda: False)
    laboratory.begin_s = laboratory.time.now_s
    laboratory.energy.sample_while(lambda: laboratory.energy.wants_more(laboratory.begin_s))
    laboratory.end_s = laboratory.time.now_s
    laboratory.energy.idle()
    window = InferenceWindow(begin_s=laboratory.begin_s, end_s=laboratory.end_s, inferences=500)
    assert laboratory.energy.result(window, Source()).net_mj == pytest.approx(40, rel=0.02)


def test_pass_for_a_slow_sensor_ends_before_its_deadline():
    """One value in two seconds: fifty of them would take longer than a pass may."""
    laboratory = Laboratory(deadline_s=140.0, period_s=2.0)
    window = laboratory.run()
    assert 130 < laboratory.time.now_s <= 140
    assert "new values in" in laboratory.refusal(window)


def test_pass_without_its_second_idle_gives_no_energy():
    laboratory = Laboratory()
    laboratory.energy.idle()
    laboratory.begin_s = laboratory.time.now_s
    laboratory.energy.sample_while(lambda: laboratory.energy.wants_more(laboratory.begin_s))
    window = InferenceWindow(begin_s=laboratory.begin_s, end_s=laboratory.time.now_s, inferences=500)
    assert "not seen idle before and after the inferences" in laboratory.refusal(window)


@pytest.mark.parametrize(
    ("inferences", "seconds", "found"),
    [(0, 10.0, "0 inferences in 10.0 s"), (250, 5.0, "250 inferences in 5.0 s")],
)
def test_too_little_inference_gives_no_energy(inferences: int, seconds: float, found: str):
    laboratory = Laboratory()
    begin_s = laboratory.run().begin_s
    window = InferenceWindow(begin_s=begin_s, end_s=begin_s + seconds, inferences=inferences)
    assert laboratory.refusal(window) == f"{found}; expected at least 1 in 10 s; measure again"
