"""A candidate of a front as something to take away."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from controller.codegen.generator import generate_project
from controller.codegen.project import Project
from controller.config import search_config
from controller.core.errors import NotFoundError
from controller.core.measurement import Measurement, ModelFormat
from controller.core.trial import Trial, left_out
from controller.goals import run_objectives
from controller.models.artifact import export
from controller.models.module import NetworkModule
from controller.pareto.front import front
from controller.pareto.preference import select
from controller.plan import DATASET_INFO, RECIPE, space_of
from controller.store.records import Run
from controller.store.store import Store

_MEASUREMENT: TypeAdapter[Measurement] = TypeAdapter(Measurement)


def generate(store: Store, run: Run, out: Path, *, preference: str = "knee") -> Trial:
    """Write a candidate of a run's front as a standalone project, and return it.

    Args:
        store: Where the run is.
        run: Whose front to choose from.
        out: Folder to make; it must not hold anything yet.
        preference: As in `controller.pareto.preference`.

    Raises:
        InvalidInputError: If the run has no front yet, preference fits none of it, or out is taken.
        ExportError: If the generated model does not compute what was searched.
    """
    objectives = run_objectives(run)
    trials = store.trials(run.id).trials
    best = front(objectives, trials)
    if not best:
        why = left_out(trials) or "no candidate is complete and meets every constraint"
        raise NotFoundError(
            f"run {run.id} has nothing to generate: {why}; `edgenas runs show {run.id}` has them all"
        )
    trial = select(best, objectives, preference)
    dataset = DATASET_INFO.validate_python(run.configuration["dataset"])
    config = search_config(run.configuration["config"], f"run {run.id}")
    network = space_of(config, dataset).lower(trial.architecture)
    module = NetworkModule(network)
    module.load_state_dict(store.weights(run.id, trial.id))
    measured = store.measurements(run.id, trial)
    # Exported once and kept: another version of onnx might write other bytes than those that were measured.
    onnx = store.exported(run.id, trial.id) if measured else export(module, ModelFormat.ONNX).data
    if onnx is None or any(m.model_sha256 != hashlib.sha256(onnx).hexdigest() for m in measured.values()):
        raise NotFoundError(
            f"candidate {trial.id} of run {run.id} was measured before it was trained, not yet with its weights; "
            f"let the run finish first: edgenas runs resume {run.id}"
        )
    generate_project(
        Project(
            name=f"{dataset.name}-{trial.id}",
            network=network,
            weights=module.state_dict(),
            onnx=onnx,
            dataset=dataset,
            recipe=RECIPE.validate_python(run.configuration["recipe"]),
            train_images=run.configuration["train_images"],
            figures=trial.values,
            measurements=[_measured(device, measurement) for device, measurement in measured.items()],
        ),
        out,
    )
    return trial


def _measured(device: str, measurement: Measurement) -> dict[str, Any]:
    """Return a measurement for `measurements.json`."""
    record: dict[str, Any] = json.loads(_MEASUREMENT.dump_json(measurement))
    return {
        "device": device,
        "model_file": "model.onnx",
        **measurement.metrics,
        "energy_mj": measurement.energy_mj,
        "energy_absent_reason": measurement.energy_absent_reason,
        "flags": list(measurement.flags),
        **{
            key: value
            for key, value in record.items()
            if key not in ("flags", "energy_mj", "energy_absent_reason")
        },
    }
