"""Several models on one device, taking turns: each round measures every model in a fresh process."""

import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from controller.core.errors import BenchmarkFailedError, EdgeNASError
from controller.core.measurement import Measurement, MeasurementMode
from controller.core.options import MeasurementOptions
from controller.devices.client import DeviceClient
from controller.models.file import ModelFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A model and how to measure it."""

    file: ModelFile
    options: MeasurementOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What came out of all rounds on one device.

    Attributes:
        measured: One measurement a round by model name; only of models that were measured in every round.
        failures: Why the others were not, by model name.
    """

    measured: Mapping[str, Sequence[Measurement]]
    failures: Mapping[str, str]


def measure_in_rounds(
    client: DeviceClient,
    entrants: Sequence[Entrant],
    rounds: int,
    on_event: Callable[[str, str], object] = lambda _model, _event: None,
) -> Rounds:
    """Return figures of every model, one job of the device for each model and round.

    The order rotates from round to round, so that no model always follows the same other one. A model that
    fails takes no part in later rounds. The profile, which is a pass of its own, is taken in the first round.

    Args:
        client: The device.
        entrants: What to measure, each of another name.
        rounds: How often; 1 or more.
        on_event: Told a model's name and in a few words what happens to it.

    Raises:
        DeviceUnreachableError: If the device stays away.
        DeviceError: If it refuses what the options ask for.
    """
    measured: dict[str, list[Measurement]] = {entrant.file.name: [] for entrant in entrants}
    failures: dict[str, str] = {}
    for index in range(rounds):
        shift = index % len(entrants)
        for entrant in (*entrants[shift:], *entrants[:shift]):
            name = entrant.file.name
            if name in failures:
                continue
            label = name if rounds == 1 else f"{name} ({index + 1} of {rounds})"
            options = replace(entrant.options, profile=entrant.options.profile and index == 0)
            try:
                found = _measure(client, entrant.file, options, partial(on_event, label))
            except BenchmarkFailedError as error:
                failures[name] = str(error)
            else:
                measured[name].append(found)
    complete = {name: found for name, found in measured.items() if name not in failures}
    return Rounds(measured=complete, failures=failures)


def _measure(
    client: DeviceClient,
    file: ModelFile,
    options: MeasurementOptions,
    on_event: Callable[[str], object],
) -> Measurement:
    request_id = f"bench-{uuid.uuid4().hex}"
    try:
        return client.measure(
            file.read(),
            request_id=request_id,
            model_name=file.name,
            mode=MeasurementMode.FULL,
            options=options,
            on_event=on_event,
        )
    except KeyboardInterrupt:
        # The job goes on without its caller; others may be waiting for the board.
        with contextlib.suppress(EdgeNASError):
            client.cancel(request_id)
        raise
