"""Reading and writing runs. Every method that writes is one transaction."""

import io
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, create_engine, delete, event, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from controller.core.errors import ConfigurationError, NotFoundError, StoreError
from controller.core.learning import LearningStep
from controller.core.measurement import ExportedModel, Measurement
from controller.core.trial import Trial
from controller.store.owner import Owner
from controller.store.records import Run, RunState, SavedTrials, columns_of, run_of, trial_of
from controller.store.tables import blobs, curves, measurements, metadata, runs, trials

if TYPE_CHECKING:
    import torch

_GO_ON = "what was saved before is safe; free disk space, then go on with `edgenas runs resume last`"
_CHECK = "check the address, the permissions and that the database is up"
_ADVICE = {
    "full": _GO_ON,
    "disk I/O": _GO_ON,
    "not a database": "name another file with --store",
    "readonly": "make it writable, or name another one with --store",
    "locked": "another process holds it; try again when that has ended",
}
_MEASUREMENT: TypeAdapter[Measurement] = TypeAdapter(Measurement)
_WEIGHTS, _EXPORTED = "weights", "exported"


class Store:
    """Runs in a database.

    Args:
        url: An SQLAlchemy URL, or the path of an SQLite file.

    Raises:
        ConfigurationError: If url is none, or its driver is not installed.
        StoreError: If the database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._url = url if "://" in url else f"sqlite:///{Path(url).expanduser()}"
        try:
            self._engine = create_engine(self._url)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
            shown = re.sub(
                r"(//[^:/@]*):.*@", r"\1:***@", url
            )  # what cannot be parsed may hold a password as well
            raise ConfigurationError(
                f"store {shown!r} cannot be used: {error}; expected a file or a database URL whose driver is installed"
            ) from error
        if self._engine.dialect.name == "sqlite":
            self._prepare_sqlite()
        with self._translated():
            metadata.create_all(self._engine)

    @property
    def url(self) -> str:
        """The database's URL."""
        return self._url

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def create_run(self, configuration: Mapping[str, Any], environment: Mapping[str, str]) -> Run:
        """Add a run that this process works on."""
        run = Run(
            id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            created_at=datetime.now(UTC),
            state=RunState.RUNNING,
            configuration=configuration,
            environment=environment,
            elapsed_s=0.0,
            owner=Owner.this_process(),
        )
        with self._transaction() as connection:
            connection.execute(
                insert(runs).values(
                    id=run.id,
                    created_at=run.created_at.isoformat(),
                    state=run.state.value,
                    configuration=json.dumps(configuration),
                    environment=json.dumps(environment),
                    elapsed_s=0.0,
                    owner=str(run.owner),
                )
            )
        return run

    def runs(self) -> list[Run]:
        """Return all runs, newest first."""
        with self._transaction() as connection:
            return [
                run_of(row) for row in connection.execute(select(runs).order_by(runs.c.created_at.desc()))
            ]

    def run(self, name: str) -> Run:
        """Return the run with this id, or the only one whose id begins so, or the newest for `last`.

        Raises:
            NotFoundError: If there is none, or several.
        """
        known = self.runs()
        if not known:
            raise NotFoundError(f"run {name!r} is not there: there are none yet; `edgenas search` starts one")
        if name == "last":
            return known[0]
        matches = [run for run in known if run.id == name] or [
            run for run in known if name and run.id.startswith(name)
        ]
        if len(matches) != 1:
            newest = ", ".join(run.id for run in known[:3])
            raise NotFoundError(
                f"run {name!r} fits {len(matches)} runs; expected an id from `edgenas runs list` (newest: {newest})"
            )
        return matches[0]

    def claim(
        self, run: Run, *, configuration: Mapping[str, Any] | None = None, take_over: bool = False
    ) -> Run:
        """Make this process the one at work on run.

        Args:
            run: The run.
            configuration: What it is asked to do from now on; None leaves that as it was.
            take_over: Whether to do so even if another process seems to be at work on it.

        Raises:
            StoreError: If another process is at work on it.
        """
        changes = {"state": RunState.RUNNING.value, "owner": str(Owner.this_process())}
        if configuration is not None:
            changes["configuration"] = json.dumps(configuration)
        with self._transaction() as connection:
            # The row is locked before it is read, so of two claims at once one waits and then sees the other.
            connection.execute(update(runs).where(runs.c.id == run.id).values(id=run.id))
            current = run_of(connection.execute(select(runs).where(runs.c.id == run.id)).one())
            if current.owner != Owner.this_process() and not take_over:
                _refuse_if_at_work(current)
            connection.execute(update(runs).where(runs.c.id == run.id).values(**changes))
        return self.run(run.id)

    def release(self, run_id: str, state: RunState, elapsed_s: float) -> None:
        """Record that this process has stopped working on a run."""
        with self._transaction() as connection:
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id)
                .values(state=state.value, elapsed_s=elapsed_s, owner="")
            )

    def delete_run(self, run: Run, *, take_over: bool = False) -> None:
        """Remove a run and everything that belongs to it.

        Args:
            run: The run.
            take_over: Whether to do so even if a process seems to be at work on it.

        Raises:
            StoreError: If a process is at work on it.
        """
        if not take_over:
            _refuse_if_at_work(run)
        with self._transaction() as connection:
            for table in (blobs, curves, measurements, trials):
                connection.execute(delete(table).where(table.c.run_id == run.id))
            connection.execute(delete(runs).where(runs.c.id == run.id))

    def trials(self, run_id: str) -> SavedTrials:
        """Return a run's trials as last saved."""
        with self._transaction() as connection:
            state = connection.execute(select(runs.c.algorithm_state).where(runs.c.id == run_id)).scalar_one()
            rows = connection.execute(
                select(trials).where(trials.c.run_id == run_id).order_by(trials.c.position)
            ).all()
        return SavedTrials(
            trials=tuple(trial_of(row) for row in rows),
            told=sum(row.told for row in rows),
            algorithm_state=state,
        )

    def save_asked(self, run_id: str, asked: Trial, algorithm_state: bytes) -> None:
        """Add a trial, together with the state of the algorithm that asked for it."""
        with self._transaction() as connection:
            connection.execute(insert(trials).values(run_id=run_id, told=False, **columns_of(asked)))
            connection.execute(
                update(runs).where(runs.c.id == run_id).values(algorithm_state=algorithm_state)
            )

    def save_told(
        self,
        run_id: str,
        trial: Trial,
        algorithm_state: bytes,
        elapsed_s: float,
        points: Mapping[str, float] | None = None,
    ) -> None:
        """Record that the algorithm has been told of a trial, together with the state that left it in.

        Args:
            run_id: Whose trial.
            trial: What was told.
            algorithm_state: Of the algorithm, afterwards.
            elapsed_s: Of the run.
            points: What that adds to the run's curves, by curve; the step is the number of trials told.
        """
        with self._transaction() as connection:
            connection.execute(_update(run_id, trial).values(told=True))
            _save_points(connection, run_id, trial.index + 1, points or {})
            _save_state(connection, run_id, algorithm_state, elapsed_s)

    def save_learnt(self, run_id: str, step: LearningStep, algorithm_state: bytes, elapsed_s: float) -> None:
        """Add a point to each curve of an algorithm's own learning, together with the state that left it in."""
        with self._transaction() as connection:
            _save_points(connection, run_id, step.number, step.curves)
            _save_state(connection, run_id, algorithm_state, elapsed_s)

    def curves(self, run_id: str) -> dict[str, dict[int, float]]:
        """Return what a run's algorithm learnt, by curve: values by step, in order."""
        with self._transaction() as connection:
            rows = connection.execute(
                select(curves).where(curves.c.run_id == run_id).order_by(curves.c.name, curves.c.step)
            ).all()
        found: dict[str, dict[int, float]] = {}
        for row in rows:
            found.setdefault(row.name, {})[row.step] = row.value
        return found

    def save_trial(
        self, run_id: str, trial: Trial, weights: "Mapping[str, torch.Tensor] | None" = None
    ) -> None:
        """Save what is known of a trial, with its weights where it was just trained."""
        with self._transaction() as connection:
            connection.execute(_update(run_id, trial).values(**columns_of(trial)))
            if weights is not None:
                # Whoever has weights has imported it; who lists runs need not wait for it.
                import torch

                buffer = io.BytesIO()
                torch.save(dict(weights), buffer)
                _save_blob(connection, run_id, trial.id, _WEIGHTS, buffer.getvalue())

    def save_exported(self, run_id: str, trial_id: str, model: ExportedModel) -> None:
        """Save the file that a trained trial is confirmed and handed over as."""
        with self._transaction() as connection:
            _save_blob(connection, run_id, trial_id, _EXPORTED, model.data)

    def exported(self, run_id: str, trial_id: str) -> bytes | None:
        """Return the file that a trial was confirmed as; None where it has not been."""
        return self._blob(run_id, trial_id, _EXPORTED)

    def save_measurement(self, run_id: str, trial_id: str, device: str, measurement: Measurement) -> None:
        """Save a measurement; one that is there already stays as it is."""
        dialect: Any = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        with self._transaction() as connection:
            connection.execute(
                dialect.insert(measurements)
                .values(
                    run_id=run_id,
                    request_id=measurement.request_id,
                    trial_id=trial_id,
                    device=device,
                    measurement=_MEASUREMENT.dump_json(measurement).decode(),
                )
                .on_conflict_do_nothing()
            )

    def measurements(self, run_id: str, trial: Trial) -> dict[str, Measurement]:
        """Return a trial's latest measurement by device."""
        with self._transaction() as connection:
            rows = connection.execute(
                select(measurements).where(
                    measurements.c.run_id == run_id,
                    measurements.c.request_id.in_(list(trial.measurements.values())),
                )
            ).all()
        return {row.device: _MEASUREMENT.validate_json(row.measurement) for row in rows}

    def weights(self, run_id: str, trial_id: str) -> "dict[str, torch.Tensor]":
        """Return the state dict of a trained trial.

        Raises:
            NotFoundError: If it was never trained.
        """
        import torch

        data = self._blob(run_id, trial_id, _WEIGHTS)
        if data is None:
            raise NotFoundError(
                f"trial {trial_id} of run {run_id} has no weights; choose one that is complete"
            )
        try:
            loaded: dict[str, torch.Tensor] = torch.load(io.BytesIO(data), weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError, KeyError) as error:
            raise StoreError(
                f"the weights of trial {trial_id} of run {run_id} are damaged; choose another trial"
            ) from error
        return loaded

    def _blob(self, run_id: str, trial_id: str, kind: str) -> bytes | None:
        with self._transaction() as connection:
            return connection.execute(
                select(blobs.c.data).filter_by(run_id=run_id, trial_id=trial_id, kind=kind)
            ).scalar_one_or_none()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            cause = str(error.orig).strip().splitlines()[0]
            advice = next((advice for word, advice in _ADVICE.items() if word in cause), _CHECK)
            raise StoreError(
                f"store {make_url(self._url).render_as_string()} cannot be used: {cause}; {advice}"
            ) from error

    def _prepare_sqlite(self) -> None:
        path = make_url(self._url).database
        if path and path != ":memory:" and not path.startswith("file:"):
            try:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"store {path} cannot be made: {error.strerror}; choose another place with --store"
                ) from error

        @event.listens_for(self._engine, "connect")
        def _set_pragmas(connection: Any, _: object) -> None:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
                connection.execute(f"PRAGMA {pragma}")


def _refuse_if_at_work(run: Run) -> None:
    if run.state is RunState.RUNNING and not run.interrupted and run.owner:
        raise StoreError(
            f"run {run.id} is at work in process {run.owner.pid} on {run.owner.host}; stop that process first, "
            "or add --take-over if you know that it has ended"
        )


def _save_points(connection: Connection, run_id: str, step: int, points: Mapping[str, float]) -> None:
    for name, value in points.items():
        connection.execute(insert(curves).values(run_id=run_id, name=name, step=step, value=value))


def _save_state(connection: Connection, run_id: str, algorithm_state: bytes, elapsed_s: float) -> None:
    connection.execute(
        update(runs).where(runs.c.id == run_id).values(algorithm_state=algorithm_state, elapsed_s=elapsed_s)
    )


def _save_blob(connection: Connection, run_id: str, trial_id: str, kind: str, data: bytes) -> None:
    key = {"run_id": run_id, "trial_id": trial_id, "kind": kind}
    connection.execute(delete(blobs).filter_by(**key))
    connection.execute(insert(blobs).values(**key, size_bytes=len(data), data=data))


def _update(run_id: str, trial: Trial) -> Any:
    return update(trials).where(trials.c.run_id == run_id, trials.c.trial_id == trial.id)
