"""Energy from the wire to a power sensor and back: a sensor of files that follows what the worker does."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from agent_harness import Agent, conv_model, running_agent, spec
from edgenas.v1 import benchmark_pb2, measurement_pb2
from sensor_trees import HWMON, break_file, build_ina2xx

ENERGY = benchmark_pb2.BENCHMARK_PHASE_ENERGY
# A pass is 6 s of idle, 10 s of inference and 6 s of idle, beside what every job takes.
PASS_LIMIT_S = 90
POWER = f"{HWMON}/power1_input"
IDLE_UW = 1_000_000
ACTIVE_UW = 3_000_000
MACS = 55_296


@dataclass(frozen=True, kw_only=True)
class Board:
    """An agent on a board of files, with a model that takes long enough to be no matter of its loop."""

    agent: Agent
    root: Path
    model: str

    def measure(
        self,
        *,
        on_energy: Callable[[], None] = lambda: None,
        **fields: object,
    ) -> measurement_pb2.Measurement:
        """Run a job with an energy pass and return its figures."""
        wanted = spec(image=[1, 3, 64, 64])
        wanted.MergeFrom(benchmark_pb2.BenchmarkSpec(energy=True, **fields))
        request = benchmark_pb2.RunBenchmarkRequest(
            request_id=f"energy-{time.monotonic_ns()}", model_sha256=self.model, spec=wanted
        )
        for event in self.agent.benchmarks.RunBenchmark(request, timeout=PASS_LIMIT_S):
            if event.progress.phase == ENERGY:
                on_energy()
        assert event.HasField("result"), event
        return event.result.measurement

    def worker_busy_s(self) -> float:
        """Return how long the main thread of the worker has run."""
        (worker,) = self.agent.workers()
        return int(Path(f"/proc/{worker.pid}/schedstat").read_text().split()[0]) / 1e9

    def set_power(self, microwatts: int) -> None:
        """Write the sensor's file, in one go as a kernel's file changes."""
        partial = self.root / "power1_input.part"
        partial.write_text(f"{microwatts}\n")
        partial.replace(self.root / POWER)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("board")
    (folder / "root").mkdir()
    formula = folder / "coefficients.json"
    formula.write_text(json.dumps({"picojoules_per_mac": 40.0, "picojoules_per_byte": 500.0}))
    with running_agent(
        folder / "state", "--root", str(folder / "root"), "--energy-model", str(formula)
    ) as agent:
        yield Board(
            agent=agent,
            root=folder / "root",
            model=agent.upload(conv_model(shape=["batch", 3, "height", "width"])),
        )


@pytest.fixture
def metered(board: Board) -> Iterator[Board]:
    """The board with an INA226 in its supply line, which draws 1 W."""
    build_ina2xx(board.root)
    board.set_power(IDLE_UW)
    yield board
    shutil.rmtree(board.root / "sys")


class Supply:
    """Draws 3 W while the worker works and 1 W while it does not, never the same value twice in a row."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._rested = False
        self._began_to_work = threading.Event()

    def wait_for_work(self) -> None:
        """Return when the worker, after a rest, works again."""
        self._rested = False
        self._began_to_work.clear()
        self._began_to_work.wait(PASS_LIMIT_S)

    def __enter__(self) -> "Supply":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the sensor's file alone from now on."""
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        time_s, busy_s, step = time.monotonic(), 0.0, 0
        while not self._ended.wait(0.02):
            try:
                now_s, now_busy_s = time.monotonic(), self._board.worker_busy_s()
            except (ValueError, OSError, psutil.Error):
                # Between two workers.
                continue
            working = now_busy_s - busy_s > 0.3 * (now_s - time_s)
            self._rested = self._rested or not working
            if working and self._rested:
                self._began_to_work.set()
            time_s, busy_s, step = now_s, now_busy_s, step + 1
            self._board.set_power((ACTIVE_UW if working else IDLE_UW) + 100 * (step % 11))


def test_formula_is_described_as_the_last_source(board: Board):
    *sensors, formula = board.agent.describe().power_sources
    assert (formula.name, formula.scope, formula.absent_reason) == ("modelled", "", "")
    assert all(sensor.absent_reason for sensor in sensors)


def assert_latency_is_there(measurement: measurement_pb2.Measurement) -> None:
    assert measurement.latency.samples >= 64
    assert measurement.latency.median_ms > 0


def assert_absent(measurement: measurement_pb2.Measurement, reason: str) -> None:
    assert not measurement.HasField("energy_mj")
    assert not measurement.HasField("energy")
    assert measurement.energy_absent_reason.startswith(reason)
    assert_latency_is_there(measurement)


def test_board_without_a_sensor_says_so(board: Board):
    assert_absent(board.measure(), "no power sensor (looked for ina2xx, jetson-hwmon, ")


def test_source_that_the_request_names_is_the_only_one_that_counts(metered: Board):
    assert_absent(metered.measure(power_source="battery"), "power source 'battery' cannot be read: ")


def test_sensor_that_dies_in_the_pass_costs_the_energy_alone(metered: Board):
    measurement = metered.measure(on_energy=lambda: break_file(metered.root / POWER))
    assert_absent(measurement, f"cannot read {metered.root / POWER}: ")


def test_formula_is_labelled_as_such(metered: Board):
    """Asked for by its name, it is taken although there is a sensor."""
    measurement = metered.measure(power_source="modelled", macs=MACS)
    energy = measurement.energy
    model_bytes = len(conv_model(shape=["batch", 3, "height", "width"]))
    assert measurement.energy_mj == pytest.approx((40.0 * MACS + 500.0 * model_bytes) * 1e-9)
    assert energy.net_mj == measurement.energy_mj
    assert (energy.modelled, energy.source, energy.scope) == (True, "modelled", "")
    assert energy.calibration == "40 pJ/MAC + 500 pJ/byte (coefficients.json)"
    for unknown in ("gross_mj", "idle_mw", "active_mw", "updates_per_s", "inferences"):
        assert not energy.HasField(unknown)
    assert measurement.energy_absent_reason == ""


@pytest.mark.slow
def test_energy_is_what_the_board_draws_beyond_its_idle_power(metered: Board):
    with Supply(metered):
        measurement = metered.measure(power_source="ina2xx:1-0040")
    energy = measurement.energy
    assert measurement.energy_absent_reason == ""
    assert energy.idle_mw == pytest.approx(1000, rel=0.05)
    assert energy.active_mw == pytest.approx(3000, rel=0.05)
    # A loop of inferences takes what one of them takes, and the loop.
    inference_s = energy.gross_mj / energy.active_mw
    assert 0.7 < 1e3 * inference_s / measurement.latency.median_ms < 2
    assert energy.net_mj == pytest.approx(2000 * inference_s, rel=0.08)
    assert measurement.energy_mj == energy.net_mj
    assert energy.inferences == pytest.approx(10 / inference_s, rel=0.1)
    assert energy.updates_per_s > 5
    assert (energy.source, energy.scope, energy.modelled) == ("ina2xx:1-0040", "input", False)
    assert energy.covers == "ina226 at 1-0040, shunt 100000 µΩ"
    assert_latency_is_there(measurement)


@pytest.mark.slow
def test_sensor_that_dies_while_the_model_runs_costs_the_energy_alone(metered: Board):
    with Supply(metered) as supply:
        lived_s = []

        def die_at_work() -> None:
            begin_s = time.monotonic()
            supply.wait_for_work()
            lived_s.append(time.monotonic() - begin_s)
            supply.stop()
            break_file(metered.root / POWER)

        measurement = metered.measure(on_energy=lambda: threading.Thread(target=die_at_work).start())
    # The idle window before takes 6 s.
    assert 5 < lived_s[0] < 10
    assert_absent(measurement, f"cannot read {metered.root / POWER}: ")


@pytest.mark.slow
def test_load_that_draws_nothing_measurable_has_no_energy(metered: Board):
    """The supply line is another board's: its power does not follow the worker."""
    ended = threading.Event()

    def ripple() -> None:
        step = 0
        while not ended.wait(0.02):
            step += 1
            metered.set_power(IDLE_UW + 100 * (step % 11))

    thread = threading.Thread(target=ripple)
    thread.start()
    try:
        measurement = metered.measure()
    finally:
        ended.set()
        thread.join()
    assert_absent(measurement, "inference does not draw measurably more than idle: ")
