from pathlib import Path

from board_trees import jetson_orin, raspberry_pi, vcgencmd

from device_agent.board.telemetry import TelemetrySampler


def test_sample_carries_the_power_that_is_read(tmp_path: Path):
    readings = iter([4200.0, None])
    sampler = TelemetrySampler(tmp_path, read_power=lambda: next(readings))
    assert [sampler.sample(0).power_mw, sampler.sample(0).power_mw] == [4200.0, None]


def test_sample_without_a_power_source_has_no_power(tmp_path: Path):
    assert TelemetrySampler(tmp_path).sample(0).power_mw is None


def test_sample_names_what_slows_the_board_down(tmp_path: Path):
    root = raspberry_pi(tmp_path)
    vcgencmd(root, clock_hz=600117184, throttled="0x20002")
    sample = TelemetrySampler(root).sample(queued_jobs=2)
    assert sample.conditions.throttling == ("arm frequency capped",)
    assert sample.conditions.clock_mhz == 600.117184
    assert sample.queued_jobs == 2


def test_sample_does_not_start_a_program_for_the_power_mode(tmp_path: Path):
    root = jetson_orin(tmp_path)
    assert TelemetrySampler(root).sample(0).conditions.power_mode is None
