"""A chain of layers, each with its own operation, channels, stride and skip connections.

A space of `max_layers` slots. A slot whose operation is `zero` is pruned. An architecture is canonical
when its layers fill the first slots in order and every choice that changes nothing has its first option.
"""

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from controller.core.architecture import Architecture, Choice, ChoiceValue
from controller.core.errors import SpaceError
from controller.core.network import Network, NetworkBuilder
from controller.core.plugins import find_plugin
from controller.core.primitives import Add, BatchNorm2d, Conv2d, ReLU, Shape
from controller.core.protocols import Rng
from controller.spaces.analysis import Figures, analysed
from controller.spaces.operations import OPERATIONS, ZERO, Operation
from controller.spaces.presets import PRESETS, Limits
from controller.spaces.recombination import ATTEMPTS, check_options, drawn, one_of
from controller.spaces.skeleton import add_head, add_stem, check_ascending, check_classes, stem_stride

OPERATION_NAMES = (
    "conv3x3",
    "conv5x5",
    "depthwise_conv",
    "max_pool",
    "avg_pool",
    "skip_connect",
    "sep_conv3x3",
    "dil_conv3x3",
    "conv1x1",
)
CHANNELS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_MUTATIONS = ("operation", "channels", "stride", "skips", "insert", "delete")
_SKIPS_UP_TO = (
    0.5,
    0.85,
)  # shares of random layers with no skip connection, and with one at most; others have two
_SMALLEST_MAP = 4  # pixels; sampling seldom halves maps below this, mutation may


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    """One layer.

    `skips` holds at most two distances back to the outputs added to this layer's: 1 is its own input,
    2 the output before that, and so on.
    """

    operation: str
    channels: int
    stride: int
    skips: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ChainSpace:
    """Chains of layers between a stem and a classifier.

    Args:
        input_shape: (channels, height, width) of the images.
        classes: Number of classes.
        min_layers: Fewest layers left after pruning.
        max_layers: Most layers.
        operations: Names of the operations to choose from; `zero` is there anyway where depth may vary.
        channels: Numbers of channels to choose from, ascending.
        max_skip_distance: How many outputs back a skip connection may reach.
        stem_channels: Channels of the first convolution.
        limits: Bounds on parameters, multiply-accumulates and activations of every proposal.

    Raises:
        SpaceError: If the arguments make no sense together.
        ConfigurationError: If nobody provides an operation.
    """

    input_shape: Shape
    classes: int
    min_layers: int = 3
    max_layers: int = 8
    operations: tuple[str, ...] = OPERATION_NAMES
    channels: tuple[int, ...] = CHANNELS
    max_skip_distance: int = 4
    stem_channels: int = 16
    limits: Limits = PRESETS["edge"]

    def __post_init__(self) -> None:
        if not 1 <= self.min_layers <= self.max_layers:
            raise SpaceError(
                f"min_layers is {self.min_layers} and max_layers {self.max_layers}; expected 1 <= min_layers <= max_layers"
            )
        check_ascending("channels", self.channels)
        if not self._operations:
            raise SpaceError("operations hold nothing but zero; add at least one that computes something")
        check_classes(self.classes)
        if self.max_skip_distance < 0 or self.stem_channels < 1:
            raise SpaceError(
                f"max_skip_distance is {self.max_skip_distance} and stem_channels {self.stem_channels}; expected at least 0 and 1"
            )

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name in self.operations if name != ZERO))

    @cached_property
    def _operations(self) -> Mapping[str, Operation]:
        return {name: find_plugin("operations", OPERATIONS, name) for name in self._names}

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Five choices a slot: operation, channels, stride and two skip distances (0 for none)."""
        prunable = self.min_layers < self.max_layers or ZERO in self.operations
        operations = (ZERO, *self._names) if prunable else self._names
        per_slot: dict[str, tuple[ChoiceValue, ...]] = {
            "operation": operations,
            "channels": self.channels,
            "stride": (1, 2),
            "skip_1": tuple(range(self.max_skip_distance + 1)),
            "skip_2": tuple(range(self.max_skip_distance + 1)),
        }
        return tuple(
            Choice(name=f"layer_{index}.{name}", options=options)
            for index in range(1, self.max_layers + 1)
            for name, options in per_slot.items()
        )

    def sample(self, rng: Rng) -> Architecture:
        """Return a random architecture within the limits.

        A ceiling on channels is drawn first: drawn layer by layer, small networks would be rare.

        Raises:
            SpaceError: If none of 2,000 samples is within the limits.
        """

        def attempt() -> Architecture | None:
            ceiling = int(rng.integers(len(self.channels))) + 1
            count = int(rng.integers(self.min_layers, self.max_layers + 1))
            return self._accept([self._random_slot(rng, ceiling, count) for _ in range(count)])

        return drawn(attempt, self.limits)

    def mutate(self, architecture: Architecture, rng: Rng) -> Architecture:
        """Return a neighbour: another operation, width, stride or skip of one layer, or one layer more or less."""
        slots = self._slots(architecture.values)
        for _ in range(ATTEMPTS):
            accepted = self._accept(self._mutated(slots, rng))
            if accepted is not None and accepted != architecture:
                return accepted
        return self.sample(rng)

    def cross(self, first: Architecture, second: Architecture, rng: Rng) -> Architecture:
        """Return a child: a contiguous block of layers of the second parent replaces one of the first."""
        ours, theirs = self._slots(first.values), self._slots(second.values)
        for _ in range(ATTEMPTS):
            start, stop = sorted(rng.integers(0, len(ours) + 1, size=2).tolist())
            from_, to = sorted(rng.integers(0, len(theirs) + 1, size=2).tolist())
            accepted = self._accept(ours[:start] + theirs[from_:to] + ours[stop:])
            if accepted is not None:
                return accepted
        return first

    def compose(self, values: Mapping[str, ChoiceValue]) -> Architecture | None:
        """Return the canonical architecture with these values; None where it breaks a limit or has too few layers."""
        return self._accept(self._slots(values))

    def lower(self, architecture: Architecture) -> Network:
        """Return the network: a stem, a block for each layer, a head.

        Raises:
            SpaceError: If a choice is missing or its value is no option of this space.
        """
        self._check(architecture)
        return self._network(self._canonical(self._slots(architecture.values)))

    def figures(self, architecture: Architecture) -> Mapping[str, float]:
        """Return what the network's graph tells.

        Raises:
            SpaceError: If architecture is not of this space.
        """
        return self._figures(architecture)

    @cached_property
    def _figures(self) -> Figures:
        return analysed(self.lower)

    def _check(self, architecture: Architecture) -> None:
        check_options(self, architecture)
        if len(self._canonical(self._slots(architecture.values))) < self.min_layers:
            raise SpaceError(
                f"architecture {architecture.id} has fewer than {self.min_layers} layers left after pruning; expected at least that"
            )

    def _slots(self, values: Mapping[str, ChoiceValue]) -> list[_Slot]:
        """Return the layers that values name, without the pruned ones behind the last."""
        slots = []
        for index in range(1, self.max_layers + 1):
            operation, channels, stride, *skips = (
                values[f"layer_{index}.{name}"]
                for name in ("operation", "channels", "stride", "skip_1", "skip_2")
            )
            slots.append(
                _Slot(
                    operation=str(operation),
                    channels=int(channels),
                    stride=int(stride),
                    skips=tuple(int(skip) for skip in skips if skip),
                )
            )
        while slots and slots[-1].operation == ZERO:
            slots.pop()
        return slots

    def _accept(self, slots: Sequence[_Slot]) -> Architecture | None:
        """Return the canonical architecture of slots, or None where it has too few or many layers or breaks a limit."""
        layers = self._canonical(slots)
        if not self.min_layers <= len(layers) <= self.max_layers:
            return None
        values = {choice.name: choice.options[0] for choice in self.choices}
        for index, slot in enumerate(layers, start=1):
            skips = (*slot.skips, 0, 0)
            values |= {
                f"layer_{index}.operation": slot.operation,
                f"layer_{index}.channels": slot.channels,
                f"layer_{index}.stride": slot.stride,
                f"layer_{index}.skip_1": skips[0],
                f"layer_{index}.skip_2": skips[1],
            }
        architecture = Architecture.of(values)
        return architecture if self.limits.hold(self._figures(architecture)) else None

    def _canonical(self, slots: Sequence[_Slot]) -> list[_Slot]:
        """Return the layers that remain, each with its meaningless choices at their first option.

        A skip connection to a pruned layer reaches the output that took its place.
        """
        height, width = self._stem_map
        layers: list[_Slot] = []
        outputs = [0]  # by slot, the number of layers up to and including it that remain
        for slot in slots:
            stride = slot.stride if max(height, width) > 1 else 1
            distances = {
                len(layers) + 1 - outputs[len(outputs) - skip] for skip in slot.skips if skip <= len(outputs)
            }
            if slot.operation == "skip_connect" and stride == 1:
                distances.discard(1)
            if slot.operation != ZERO and (slot.operation != "skip_connect" or stride > 1 or distances):
                keeps = self._operations[slot.operation].keeps_channels
                channels = self.channels[0] if keeps else slot.channels
                skips = tuple(sorted(distances))[:2]
                layers.append(replace(slot, channels=channels, stride=stride, skips=skips))
                height, width = -(-height // stride), -(-width // stride)
            outputs.append(len(layers))
        return layers

    def _network(self, layers: Sequence[_Slot]) -> Network:
        builder = NetworkBuilder(input_shape=self.input_shape)
        outputs = [add_stem(builder, self.stem_channels)]
        for index, slot in enumerate(layers, start=1):
            with builder.block(f"layer_{index}", slot.operation):
                outputs.append(self._lower_layer(builder, slot, outputs))
        add_head(builder, outputs[-1], self.classes)
        return builder.build()

    def _lower_layer(self, builder: NetworkBuilder, slot: _Slot, outputs: Sequence[str]) -> str:
        operation = self._operations[slot.operation]
        result = operation.lower(builder, outputs[-1], slot.channels, slot.stride)
        terms = [result]
        for number, distance in enumerate(slot.skips, start=1):
            source = outputs[-distance]
            terms.append(_projected(builder, f"skip_{number}", source, builder.shape(result)))
        if len(terms) > 1:
            result = builder.add(builder.free("add"), Add(), *terms)
        return builder.add(builder.free("relu"), ReLU(), result) if operation.activated else result

    @property
    def _stem_map(self) -> tuple[int, int]:
        _, height, width = self.input_shape
        stride = stem_stride(self.input_shape)
        return -(-height // stride), -(-width // stride)

    def _random_slot(self, rng: Rng, ceiling: int, count: int) -> _Slot:
        halvings = max(0, int(min(self._stem_map) // _SMALLEST_MAP).bit_length() - 1)
        return _Slot(
            operation=one_of(self._names, rng),
            channels=one_of(self.channels[:ceiling], rng),
            stride=1 + int(rng.random() < max(0.05, halvings / (halvings + count))),
            skips=self._random_skips(rng),
        )

    def _random_skips(self, rng: Rng) -> tuple[int, ...]:
        count = bisect(_SKIPS_UP_TO, rng.random())
        if not self.max_skip_distance:
            return ()
        return tuple(rng.integers(1, self.max_skip_distance + 1, size=count).tolist())

    def _mutated(self, slots: Sequence[_Slot], rng: Rng) -> list[_Slot]:
        changed = list(slots)
        index = int(rng.integers(len(changed)))
        slot = changed[index]
        match one_of(_MUTATIONS, rng):
            case "operation":
                changed[index] = replace(slot, operation=one_of(self._names, rng))
            case "channels":
                position = self.channels.index(slot.channels) + one_of((-2, -1, 1, 2), rng)
                changed[index] = replace(
                    slot, channels=self.channels[min(max(position, 0), len(self.channels) - 1)]
                )
            case "stride":
                changed[index] = replace(slot, stride=3 - slot.stride)
            case "skips":
                changed[index] = replace(slot, skips=self._random_skips(rng))
            case "insert":
                changed.insert(
                    index,
                    replace(
                        self._random_slot(rng, len(self.channels), len(slots)),
                        stride=1,
                        channels=slot.channels,
                    ),
                )
            case _:
                del changed[index]
        return changed


def _projected(builder: NetworkBuilder, name: str, source: str, shape: Shape) -> str:
    """Return source, brought to shape by a strided pointwise convolution where it differs."""
    channels, height, width = builder.shape(source)
    if (channels, height, width) == shape:
        return source
    stride = max(-(-height // shape[1]), -(-width // shape[2]))
    conv = builder.add(f"{name}_conv", Conv2d(shape[0], 1, stride=stride), source)
    return builder.add(f"{name}_bn", BatchNorm2d(), conv)
