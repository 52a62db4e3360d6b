import contextlib
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from example_measurement import complete_measurement, measurement
from store_examples import complete, pending

from controller.core.errors import ConfigurationError, NotFoundError, StoreError
from controller.core.learning import LearningStep
from controller.core.measurement import ExportedModel, ModelFormat
from controller.core.trial import TrialState
from controller.store.owner import Owner
from controller.store.records import RunState
from controller.store.store import Store


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    opened = Store(str(database))
    yield opened
    opened.close()


def reopened(store: Store, database: Path) -> Store:
    store.close()
    return Store(str(database))


def test_run_is_kept_as_it_was_created(store: Store, database: Path):
    created = store.create_run({"config": {"dataset": "digits", "seed": 3}}, {"python": "3.11.7"})
    again = reopened(store, database)
    assert again.run(created.id) == created
    assert again.run(created.id).configuration == {"config": {"dataset": "digits", "seed": 3}}
    again.close()


def test_new_run_belongs_to_this_process(store: Store):
    run = store.create_run({}, {})
    assert (run.state, run.owner, run.elapsed_s) == (RunState.RUNNING, Owner.this_process(), 0.0)
    assert not run.interrupted
    assert 0 <= (datetime.now(UTC) - run.created_at).total_seconds() < 60


def test_runs_are_listed_newest_first(store: Store):
    created = [store.create_run({}, {}).id for _ in range(5)]
    assert [run.id for run in store.runs()] == created[::-1]


def test_released_run_belongs_to_nobody(store: Store):
    run = store.create_run({}, {})
    store.release(run.id, RunState.STOPPED, 12.5)
    released = store.run(run.id)
    assert (released.state, released.owner, released.elapsed_s) == (RunState.STOPPED, None, 12.5)
    assert not released.interrupted


def test_released_run_can_be_claimed(store: Store):
    run = store.create_run({}, {})
    store.release(run.id, RunState.STOPPED, 12.5)
    claimed = store.claim(run)
    assert (claimed.state, claimed.owner, claimed.elapsed_s) == (
        RunState.RUNNING,
        Owner.this_process(),
        12.5,
    )
    assert store.run(run.id) == claimed


def test_run_can_be_claimed_again_by_its_own_process(store: Store):
    run = store.create_run({}, {})
    assert store.claim(run).owner == Owner.this_process()


def test_run_claimed_with_a_configuration_has_that_from_now_on(store: Store):
    run = store.create_run({"budget": "50"}, {})
    assert store.claim(run).configuration == {"budget": "50"}
    assert store.claim(run, configuration={"budget": "100"}).configuration == {"budget": "100"}
    assert store.run(run.id).configuration == {"budget": "100"}


def test_run_is_found_by_the_beginning_of_its_id(store: Store):
    first, second = store.create_run({}, {}), store.create_run({}, {})
    length = next(n for n in range(1, 99) if first.id[:n] != second.id[:n])
    assert store.run(first.id[:length]) == first
    assert store.run(second.id[:length]) == second


def test_last_run_is_the_newest(store: Store):
    store.create_run({}, {})
    newest = store.create_run({}, {})
    assert store.run("last") == newest


def test_beginning_of_several_ids_is_refused(store: Store):
    runs = [store.create_run({}, {}) for _ in range(2)]
    with pytest.raises(NotFoundError) as caught:
        store.run("20")
    assert str(caught.value) == (
        f"run '20' fits 2 runs; expected an id from `edgenas runs list` (newest: {runs[1].id}, {runs[0].id})"
    )


@pytest.mark.parametrize("name", ["", "nothing", "last"])
def test_unknown_run_is_refused_where_there_is_none(store: Store, name: str):
    with pytest.raises(
        NotFoundError, match=f"run '{name}' is not there: there are none yet; `edgenas search`"
    ):
        store.run(name)


def test_unknown_run_is_refused(store: Store):
    store.create_run({}, {})
    with pytest.raises(NotFoundError, match="run '' fits 0 runs"):
        store.run("")


def test_trials_are_kept_in_the_order_asked_for(store: Store, database: Path):
    run = store.create_run({}, {})
    for index in (2, 0, 1):
        store.save_asked(run.id, pending(index), b"state")
    again = reopened(store, database)
    assert again.trials(run.id).trials == tuple(pending(index) for index in range(3))
    again.close()


def test_trial_is_kept_with_everything_known_of_it(store: Store):
    run = store.create_run({}, {})
    trial = complete(0)
    store.save_asked(run.id, replace(pending(0), architecture=trial.architecture), b"state")
    store.save_trial(run.id, trial)
    assert store.trials(run.id).trials == (trial,)


@pytest.mark.parametrize("state", TrialState)
def test_trial_state_is_kept(store: Store, state: TrialState):
    run = store.create_run({}, {})
    store.save_asked(run.id, replace(pending(0), state=state), b"state")
    assert store.trials(run.id).trials[0].state is state


def test_new_run_has_no_trials(store: Store):
    saved = store.trials(store.create_run({}, {}).id)
    assert (saved.trials, saved.told, saved.algorithm_state) == ((), 0, None)


def test_trials_of_one_run_are_not_those_of_another(store: Store):
    first, second = store.create_run({}, {}), store.create_run({}, {})
    store.save_asked(first.id, pending(0), b"first")
    store.save_asked(second.id, pending(0), b"second")
    store.save_trial(first.id, replace(pending(0), epochs=5))
    assert store.trials(second.id).trials == (pending(0),)
    assert store.trials(first.id).algorithm_state == b"first"
    assert store.trials(second.id).algorithm_state == b"second"


def test_told_trials_are_counted(store: Store):
    run = store.create_run({}, {})
    for index in range(3):
        store.save_asked(run.id, pending(index), b"asked")
    for index in range(2):
        store.save_told(run.id, pending(index), b"told %d" % index, 1.5 * (index + 1))
    saved = store.trials(run.id)
    assert (saved.told, saved.algorithm_state) == (2, b"told 1")
    assert store.run(run.id).elapsed_s == 3.0


def test_saving_a_trial_again_does_not_untell_it(store: Store):
    run = store.create_run({}, {})
    store.save_asked(run.id, pending(0), b"asked")
    store.save_told(run.id, pending(0), b"told", 1.0)
    store.save_trial(run.id, replace(pending(0), epochs=5))
    assert store.trials(run.id).told == 1


def test_asked_trial_and_algorithm_state_are_saved_together_or_not_at_all(store: Store):
    run = store.create_run({}, {})
    store.save_asked(run.id, pending(0), b"first")
    with pytest.raises(StoreError):
        store.save_asked(run.id, pending(0), b"second")
    saved = store.trials(run.id)
    assert (len(saved.trials), saved.algorithm_state) == (1, b"first")


def test_weights_are_kept(store: Store, database: Path):
    run = store.create_run({}, {})
    weights = {
        "stem.conv.weight": torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)),
        "stem.bn.num_batches_tracked": torch.tensor(7),
    }
    store.save_asked(run.id, pending(0), b"state")
    store.save_trial(run.id, pending(0), weights)
    again = reopened(store, database)
    loaded = again.weights(run.id, pending(0).id)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    again.close()


def test_weights_saved_again_replace_the_earlier_ones(store: Store):
    run = store.create_run({}, {})
    store.save_asked(run.id, pending(0), b"state")
    for value in (1.0, 2.0):
        store.save_trial(run.id, pending(0), {"weight": torch.tensor(value)})
    assert float(store.weights(run.id, pending(0).id)["weight"]) == 2.0


def test_trial_saved_without_weights_keeps_those_it_has(store: Store):
    run = store.create_run({}, {})
    store.save_asked(run.id, pending(0), b"state")
    store.save_trial(run.id, pending(0), {"weight": torch.tensor(1.0)})
    store.save_trial(run.id, replace(pending(0), epochs=5))
    assert float(store.weights(run.id, pending(0).id)["weight"]) == 1.0


def test_weights_of_an_untrained_trial_are_refused(store: Store):
    run = store.create_run({}, {})
    store.save_asked(run.id, pending(0), b"state")
    with pytest.raises(NotFoundError, match=f"trial {pending(0).id} of run {run.id} has no weights"):
        store.weights(run.id, pending(0).id)


def test_damaged_weights_are_refused(store: Store, database: Path):
    run = store.create_run({}, {})
    store.save_asked(run.id, pending(0), b"state")
    store.save_trial(run.id, pending(0), {"weight": torch.tensor(1.0)})
    connection = sqlite3.connect(database)
    connection.execute("UPDATE blobs SET data = substr(data, 1, 100)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=f"the weights of trial {pending(0).id} of run {run.id} are damaged"):
        store.weights(run.id, pending(0).id)


def test_exported_file_is_kept_beside_the_weights(store: Store):
    run = store.create_run({}, {})
    data = bytes(range(256))
    model = ExportedModel(data=data, format=ModelFormat.ONNX, sha256="", precision="float32")
    store.save_asked(run.id, pending(0), b"state")
    store.save_trial(run.id, pending(0), {"weight": torch.tensor(1.0)})
    assert store.exported(run.id, pending(0).id) is None
    store.save_exported(run.id, pending(0).id, model)
    assert store.exported(run.id, pending(0).id) == data
    assert float(store.weights(run.id, pending(0).id)["weight"]) == 1.0


def test_measurement_is_kept_to_the_last_sample(store: Store, database: Path):
    run = store.create_run({}, {})
    trial = replace(pending(0), measurements={"pi4": "one", "nano": "two"})
    store.save_measurement(run.id, trial.id, "pi4", measurement("one"))
    store.save_measurement(run.id, trial.id, "nano", measurement("two", median_ms=9.5))
    again = reopened(store, database)
    assert again.measurements(run.id, trial) == {
        "pi4": measurement("one"),
        "nano": measurement("two", median_ms=9.5),
    }
    again.close()


def test_measurement_with_every_figure_is_kept(store: Store):
    run = store.create_run({}, {})
    trial = replace(pending(0), measurements={"pi4": "one"})

    store.save_measurement(run.id, trial.id, "pi4", complete_measurement("one"))

    assert store.measurements(run.id, trial) == {"pi4": complete_measurement("one")}


OLD_MEASUREMENT = """
{"request_id":"one","model_sha256":"abababababababababababababababababababababababababababababababab",
"model_name":"model","runtime":"onnx","runtime_version":"onnxruntime 1.23.0","provider":"CPUExecutionProvider",
"threads":4,"input_shapes":{"input":[1,3,32,32]},"mode":"search","started_at":"2026-05-01T12:00:00.123456Z",
"finished_at":"2026-05-01T12:00:09Z","latency":{"median_ms":3.21,"median_ci_low_ms":3.2,
"median_ci_high_ms":3.22,"mean_ms":3.3,"min_ms":3.1,"max_ms":9.9,"mad_ms":0.01,"p90_ms":3.5,"p99_ms":null,
"mild_outliers":2,"severe_outliers":1,"samples":3},"load_ms":12.0,"first_inference_ms":8.0,
"warmup_ms":[5.0,3.4],"samples_ms":[3.1,3.21,9.9],"memory":{"baseline_bytes":100,"after_load_bytes":200,
"after_first_inference_bytes":300,"after_last_inference_bytes":300,"peak_bytes":200,"pss_bytes":null,
"method":"VmHWM"},"energy_mj":null,"energy_absent_reason":"no power sensor","before":{"temperature_c":48.5,
"clock_mhz":1500.0,"governor":"schedutil","load_average_1min":0.2,"available_memory_bytes":1000000000,
"cpu_pressure_percent":null},"after":{"temperature_c":null,"clock_mhz":null,"governor":null,
"load_average_1min":null,"available_memory_bytes":null,"cpu_pressure_percent":null},"flags":["CI_NOT_REACHED"]}
"""


def test_measurement_of_an_older_store_is_read_without_inventing_anything(store: Store, database: Path):
    run = store.create_run({}, {})
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO measurements (run_id, request_id, trial_id, device, measurement) VALUES (?, ?, ?, ?, ?)",
            (run.id, "one", pending(0).id, "pi4", OLD_MEASUREMENT),
        )

    found = store.measurements(run.id, replace(pending(0), measurements={"pi4": "one"}))

    assert found == {"pi4": measurement("one")}
    assert (found["pi4"].load_was_cold, found["pi4"].gate_wait_s, found["pi4"].energy) == (None, None, None)


OLD_ENERGY = """
{"gross_mj":6.0,"net_mj":2.5,"idle_mw":3500.0,"active_mw":6000.0,"source":"ina2xx","scope":"input",
"updates_per_s":12.5,"inferences":900,"modelled":false,"calibration":""}
"""


def test_energy_of_an_older_store_is_read_without_what_it_covers(store: Store, database: Path):
    run = store.create_run({}, {})
    old = OLD_MEASUREMENT.replace(
        '"energy_mj":null,"energy_absent_reason":"no power sensor"',
        f'"energy_mj":2.5,"energy_absent_reason":"","energy":{OLD_ENERGY}',
    )
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO measurements (run_id, request_id, trial_id, device, measurement) VALUES (?, ?, ?, ?, ?)",
            (run.id, "one", pending(0).id, "pi4", old),
        )

    found = store.measurements(run.id, replace(pending(0), measurements={"pi4": "one"}))["pi4"]

    complete = complete_measurement("one").energy
    assert complete is not None
    assert (found.energy_mj, found.energy) == (2.5, replace(complete, covers=""))


def test_what_a_formula_cannot_tell_stays_absent(store: Store):
    run = store.create_run({}, {})
    trial = replace(pending(0), measurements={"pi4": "one"})
    measured = complete_measurement("one")
    assert measured.energy is not None
    by_formula = replace(
        measured.energy,
        gross_mj=None,
        idle_mw=None,
        active_mw=None,
        updates_per_s=None,
        inferences=None,
        modelled=True,
        covers="",
    )

    store.save_measurement(run.id, trial.id, "pi4", replace(measured, energy=by_formula))

    assert store.measurements(run.id, trial)["pi4"].energy == by_formula


def test_measurements_of_a_trial_are_its_latest(store: Store):
    run = store.create_run({}, {})
    for request_id, median_ms in (("search", 4.0), ("full", 3.0)):
        store.save_measurement(run.id, pending(0).id, "pi4", measurement(request_id, median_ms=median_ms))
    trial = replace(pending(0), measurements={"pi4": "full"})
    assert store.measurements(run.id, trial) == {"pi4": measurement("full", median_ms=3.0)}


def test_measurement_is_never_overwritten(store: Store):
    run = store.create_run({}, {})
    store.save_measurement(run.id, pending(0).id, "pi4", measurement("one", median_ms=4.0))
    store.save_measurement(run.id, pending(0).id, "pi4", measurement("one", median_ms=1.0))
    trial = replace(pending(0), measurements={"pi4": "one"})
    assert store.measurements(run.id, trial)["pi4"].latency.median_ms == 4.0


def test_threads_save_at_the_same_time(store: Store):
    run = store.create_run({}, {})

    def save(index: int) -> None:
        store.save_asked(run.id, pending(index), b"%d" % index)
        store.save_measurement(run.id, pending(index).id, "pi4", measurement(f"request {index}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(40)))
    assert store.trials(run.id).trials == tuple(pending(index) for index in range(40))


def test_what_an_algorithm_learnt_is_kept_by_curve_with_its_state(store: Store):
    run = store.create_run({}, {})
    points = ({"loss": 2.0, "entropy": 1.0}, {"loss": 1.5})
    for number, curves in enumerate(points, start=1):
        step = LearningStep(activity="trained", number=number, curves=curves)
        store.save_learnt(run.id, step, f"state {number}".encode(), 10.0 * number)
    assert store.curves(run.id) == {"loss": {1: 2.0, 2: 1.5}, "entropy": {1: 1.0}}
    assert store.trials(run.id).algorithm_state == b"state 2"
    assert store.run(run.id).elapsed_s == 20.0


def filled(store: Store) -> str:
    run = store.create_run({}, {})
    store.save_asked(run.id, pending(0), b"state")
    store.save_trial(run.id, pending(0), {"weight": torch.tensor(1.0)})
    store.save_measurement(run.id, pending(0).id, "pi4", measurement("one"))
    store.save_learnt(run.id, LearningStep(activity="", number=1, curves={"loss": 0.5}), b"state", 1.0)
    store.release(run.id, RunState.FINISHED, 1.0)
    return run.id


def rows_by_table(database: Path) -> dict[str, int]:
    connection = sqlite3.connect(database)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    connection.close()
    return counts


def test_deleted_run_leaves_nothing_behind(store: Store, database: Path):
    filled(store)
    kept = rows_by_table(database)
    deleted = filled(store)
    store.delete_run(store.run(deleted))
    assert rows_by_table(database) == kept
    assert set(kept.values()) == {1}


def test_run_at_work_is_not_deleted(store: Store):
    run = store.create_run({}, {})
    with pytest.raises(StoreError, match=f"run {run.id} is at work in process "):
        store.delete_run(run)
    assert store.run(run.id) == run


def refusal(url: str) -> str:
    with pytest.raises((StoreError, ConfigurationError)) as caught:
        Store(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_store_makes_the_folders_above_it(tmp_path: Path):
    Store(str(tmp_path / "a" / "b" / "runs.db")).close()
    assert (tmp_path / "a" / "b" / "runs.db").is_file()


def test_store_in_what_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("not a database " * 1000)
    message = refusal(str(tmp_path / "notes.txt"))
    assert str(tmp_path / "notes.txt") in message
    assert "file is not a database" in message
    assert (tmp_path / "notes.txt").read_text() == "not a database " * 1000


def test_store_in_a_folder_is_refused(tmp_path: Path):
    assert f"{tmp_path} cannot be used: unable to open database file" in refusal(str(tmp_path))


def test_store_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert refusal(str(tmp_path / "file" / "runs.db")).startswith(
        f"store {tmp_path / 'file' / 'runs.db'} cannot be made: "
    )


def test_store_that_is_read_only_can_be_read(store: Store, database: Path):
    run_id = filled(store)
    store.close()
    read_only = Store(f"sqlite:///file:{database}?mode=ro&uri=true")
    assert read_only.trials(run_id).trials == (pending(0),)
    with pytest.raises(StoreError, match="attempt to write a readonly database") as caught:
        read_only.create_run({}, {})
    assert "\n" not in str(caught.value)
    read_only.close()


@pytest.mark.parametrize("url", ["nonsense://server/runs", "://", "sqlite+nonsense:///runs.db"])
def test_store_of_an_unknown_kind_is_refused(url: str):
    assert refusal(url).startswith(f"store '{url}' cannot be used: ")


@pytest.mark.parametrize(
    "url", ["mssql+nonsense://edgenas:hunter2@server/runs", "postgresql://edgenas:hunter2@server:port/runs"]
)
def test_password_of_a_store_is_not_shown(url: str):
    message = refusal(url)
    assert "server" in message
    assert "hunter2" not in message
