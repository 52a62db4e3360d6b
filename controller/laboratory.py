"""What an algorithm that learns by itself is given: the trainer's images, and the boards."""

from collections.abc import Mapping

from controller.core.errors import BenchmarkFailedError, ConfigurationError
from controller.core.learning import Profile
from controller.core.measurement import Measurement, MeasurementMode, ModelFormat
from controller.core.network import Network
from controller.core.options import MeasurementOptions
from controller.evaluation import Board
from controller.flags import FlagPolicy
from controller.models.artifact import export
from controller.models.module import seeded_module
from controller.store.store import Store
from controller.training.recipe import TrainingRecipe
from controller.training.supernet import TrainedSupernet
from controller.training.trainer import Trainer

_PROFILED = "profiled"
"""What measurements that belong to no trial are saved under."""


class SearchLaboratory:
    """Trains and measures in the name of a run; see `controller.core.learning.Laboratory`.

    Args:
        run_id: The run that measurements are saved under.
        store: Where they are saved.
        trainer: Has the images.
        recipe: How networks are trained.
        boards: Devices by name.
        threads: Threads inside one operator on every board; 0 for as many as it has physical cores.
        flags: What the run makes of flagged figures.
    """

    def __init__(
        self,
        *,
        run_id: str,
        store: Store,
        trainer: Trainer,
        recipe: TrainingRecipe,
        boards: Mapping[str, Board],
        threads: int,
        flags: FlagPolicy,
    ) -> None:
        self._run_id = run_id
        self._store = store
        self._trainer = trainer
        self._recipe = recipe
        self._boards = boards
        self._options = MeasurementOptions(threads=threads, profile=True, most_attempts=flags.most_attempts)

    def supernet(self, network: Network) -> TrainedSupernet:
        """Return an untrained supernet."""
        return TrainedSupernet(self._trainer, network, self._recipe)

    def profile(self, network: Network, device: str) -> Profile:
        """Return a network's time on a device as a whole and by layer, measured, saved, and put to the device's usual speed.

        Raises:
            DeviceUnreachableError: If the device stays away.
            ConfigurationError: If it cannot measure this network or does not tell of layers.
        """
        model = export(seeded_module(network, self._recipe.seed), ModelFormat.ONNX)
        try:
            measurement = self._boards[device].bench.measure(
                model,
                request_id=f"{self._run_id}-{_PROFILED}-{device}-{model.sha256[:16]}",
                model_name=_PROFILED,
                mode=MeasurementMode.SEARCH,
                options=self._options,
            )
        except BenchmarkFailedError as error:
            raise ConfigurationError(
                f"operators cannot be timed on device {device!r}: {error}; search without a figure of it"
            ) from error
        self._store.save_measurement(self._run_id, _PROFILED, device, measurement)
        if not measurement.operators:
            raise ConfigurationError(
                f"device {device!r} does not tell where the time goes: {measurement.operators_absent_reason}; "
                "search with another algorithm"
            )
        # One part of a network timed while the board is a quarter slower would seem a quarter dearer than the others.
        speed = measurement.usual_speed
        layers_ms = {name: speed * time_ms for name, time_ms in _by_layer(network, measurement).items()}
        return Profile(latency_ms=speed * measurement.latency.median_ms, layers_ms=layers_ms)


def _by_layer(network: Network, measurement: Measurement) -> dict[str, float]:
    """Return the time of each layer: an operator belongs to the layer with the longest name that its own begins with."""
    times: dict[str, float] = {}
    names = {layer.name for layer in network.layers}
    for operator in measurement.operators:
        name = operator.layer
        while name and name not in names:
            name = name[: max(name.rfind("_"), name.rfind("."), 0)]
        if name:
            times[name] = times.get(name, 0.0) + operator.mean_ms
    return times
