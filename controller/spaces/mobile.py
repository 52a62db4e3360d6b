"""Stages of inverted residual blocks, each with its own depth and width; what phones run well.

A stage repeats blocks at one size; from the second stage on, its first block halves the image while the smaller side
has at least 8 pixels. What the network sees of the image is a choice as well: it may begin by making it smaller.

Source: Sandler et al. 2018, MobileNetV2; what is chosen, from Tan et al. 2019, MnasNet, section 4.2, and Cai et al.
2020, Once-for-All, section 3.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from controller.core.architecture import Architecture, Choice, ChoiceValue
from controller.core.errors import SpaceError
from controller.core.network import INPUT, Network, NetworkBuilder
from controller.core.plugins import find_plugin
from controller.core.primitives import ReLU, Resize, Shape
from controller.core.protocols import Rng
from controller.spaces.analysis import Figures, analysed
from controller.spaces.operations import OPERATIONS, Operation
from controller.spaces.operations.inverted_residual import InvertedResidual
from controller.spaces.presets import PRESETS, Limits
from controller.spaces.recombination import check_options, crossed, drawn, mutated
from controller.spaces.skeleton import add_head, add_stem, check_ascending, check_classes

CHANNELS = ((16, 24, 32), (24, 32, 48), (40, 64, 80), (80, 96, 128), (112, 160, 192))
INVERTED_RESIDUAL = "inverted_residual"
_SMALLEST_HALVED = 8  # pixels of the smaller side


@dataclass(frozen=True, kw_only=True)
class MobileSpace:
    """Networks of stages of blocks.

    Args:
        input_shape: (channels, height, width) of the images.
        classes: Number of classes.
        channels: Numbers of channels to choose from, ascending, for each stage.
        max_depth: Most blocks of a stage.
        operations: What a block may be: `inverted_residual`, or any operation that sets its channels, e.g. `transformer`.
        kernel_sizes: Of the depthwise convolution of an inverted residual, ascending.
        expansions: How many times wider it is inside, ascending.
        squeeze_excite: Whether its channels may be scaled by gates: 0, 1, or both to choose from.
        resolutions_percent: Sides of the image that the network sees, of those of the dataset's.
        stem_channels: Channels of the first convolution.
        limits: Bounds on parameters, multiply-accumulates and activations of every proposal.

    Raises:
        SpaceError: If the arguments make no sense together.
        ConfigurationError: If nobody provides an operation.
    """

    input_shape: Shape
    classes: int
    channels: tuple[tuple[int, ...], ...] = CHANNELS
    max_depth: int = 3
    operations: tuple[str, ...] = (INVERTED_RESIDUAL,)
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (1, 3, 6)
    squeeze_excite: tuple[int, ...] = (0, 1)
    resolutions_percent: tuple[int, ...] = (100, 75, 50)
    stem_channels: int = 16
    limits: Limits = PRESETS["edge"]

    def __post_init__(self) -> None:
        if not self.channels or not self.operations:
            raise SpaceError("the space has no stages or no operations; add channels for at least one stage")
        for stage, channels in enumerate(self.channels, start=1):
            check_ascending(f"channels of stage {stage}", channels)
        check_ascending("kernel_sizes", self.kernel_sizes)
        check_ascending("expansions", self.expansions)
        check_ascending("resolutions_percent", sorted(self.resolutions_percent))
        if not set(self.squeeze_excite) <= {0, 1} or not self.squeeze_excite:
            raise SpaceError(f"squeeze_excite is {list(self.squeeze_excite)}; expected 0, 1 or both")
        if any(size % 2 == 0 for size in self.kernel_sizes):
            raise SpaceError(f"kernel_sizes are {list(self.kernel_sizes)}; expected odd ones")
        if min(self.max_depth, self.stem_channels) < 1:
            raise SpaceError(
                f"max_depth is {self.max_depth} and stem_channels {self.stem_channels}; expected at least 1"
            )
        for name, operation in self._operations.items():
            if operation.keeps_channels:
                raise SpaceError(
                    f"operation {name!r} keeps its input's channels, but a stage sets them; leave it out of operations"
                )
        check_classes(self.classes)

    @cached_property
    def _operations(self) -> Mapping[str, Operation]:
        return {name: find_plugin("operations", OPERATIONS, name) for name in self.operations}

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """The resolution; depth and channels of each stage; what each block is. Those with more than one option."""
        return tuple(
            Choice(name=name, options=options) for name, options in self._options.items() if len(options) > 1
        )

    @cached_property
    def _options(self) -> Mapping[str, tuple[ChoiceValue, ...]]:
        """All that a network is made of, in the order of the image's way through it."""
        of_a_block: dict[str, tuple[ChoiceValue, ...]] = {
            "operation": tuple(self._operations),
            "kernel_size": self.kernel_sizes,
            "expansion": self.expansions,
            "squeeze_excite": self.squeeze_excite,
        }
        options: dict[str, tuple[ChoiceValue, ...]] = {"resolution_percent": self.resolutions_percent}
        for stage, channels in enumerate(self.channels, start=1):
            options[f"stage_{stage}.depth"] = tuple(range(1, self.max_depth + 1))
            options[f"stage_{stage}.channels"] = channels
            for block in range(1, self.max_depth + 1):
                options |= {f"{_prefix(stage, block)}{name}": values for name, values in of_a_block.items()}
        return options

    def sample(self, rng: Rng) -> Architecture:
        """Return a random architecture within the limits.

        A ceiling on depth, channels and expansion is drawn first: drawn one by one, small networks would be rare.

        Raises:
            SpaceError: If none of 2,000 samples is within the limits.
        """

        def attempt() -> Architecture | None:
            ceiling = rng.random()
            values = {}
            for choice in self.choices:
                count = len(choice.options)
                if choice.name.endswith(("depth", "channels", "expansion")):
                    count = 1 + int(ceiling * count)
                values[choice.name] = choice.options[int(rng.integers(count))]
            return self.compose(values)

        return drawn(attempt, self.limits)

    def mutate(self, architecture: Architecture, rng: Rng) -> Architecture:
        """Return a neighbour that differs in one choice."""
        return mutated(self, architecture, rng)

    def cross(self, first: Architecture, second: Architecture, rng: Rng) -> Architecture:
        """Return a child: contiguous choices, often whole stages, come from the second parent."""
        return crossed(self, first, second, rng)

    def compose(self, values: Mapping[str, ChoiceValue]) -> Architecture | None:
        """Return the canonical architecture with these values; None where it breaks a limit."""
        canonical = self._canonical(values)
        architecture = Architecture.of({choice.name: canonical[choice.name] for choice in self.choices})
        return architecture if self.limits.hold(self._figures(architecture)) else None

    def lower(self, architecture: Architecture) -> Network:
        """Return the network: a smaller image where chosen, a stem, a block each, a head.

        Raises:
            SpaceError: If architecture is not of this space.
        """
        check_options(self, architecture)
        return self._network(self._canonical(architecture.values))

    def figures(self, architecture: Architecture) -> Mapping[str, float]:
        """Return what the network's graph tells.

        Raises:
            SpaceError: If architecture is not of this space.
        """
        return self._figures(architecture)

    @cached_property
    def _figures(self) -> Figures:
        return analysed(self.lower)

    def _canonical(self, values: Mapping[str, ChoiceValue]) -> dict[str, ChoiceValue]:
        """Return a value for all options, the first one where it changes nothing."""
        first = {name: options[0] for name, options in self._options.items()}
        canonical = {**first, **values}
        seen = self._image_size(int(canonical["resolution_percent"]))
        canonical["resolution_percent"] = next(
            percent for percent in self.resolutions_percent if self._image_size(percent) == seen
        )
        for stage in range(1, len(self.channels) + 1):
            for block in range(1, self.max_depth + 1):
                prefix = _prefix(stage, block)
                if block > int(canonical[f"stage_{stage}.depth"]):
                    canonical[f"{prefix}operation"] = first[f"{prefix}operation"]
                elif canonical[f"{prefix}operation"] == INVERTED_RESIDUAL:
                    continue
                for name in ("kernel_size", "expansion", "squeeze_excite"):
                    canonical[prefix + name] = first[prefix + name]
        return canonical

    def _image_size(self, percent: int) -> tuple[int, int]:
        height, width = (max(1, round(side * percent / 100)) for side in self.input_shape[1:])
        return height, width

    def _network(self, values: Mapping[str, ChoiceValue]) -> Network:
        builder = NetworkBuilder(input_shape=self.input_shape)
        value = INPUT
        height, width = self._image_size(int(values["resolution_percent"]))
        if (height, width) != self.input_shape[1:]:
            with builder.block("resize", "resize"):
                value = builder.add("resize", Resize(height, width), value)
        value = add_stem(builder, self.stem_channels, value)
        for stage in range(1, len(self.channels) + 1):
            channels = int(values[f"stage_{stage}.channels"])
            for block in range(1, int(values[f"stage_{stage}.depth"]) + 1):
                halves = stage > 1 and block == 1 and min(builder.shape(value)[1:]) >= _SMALLEST_HALVED
                operation = self._operation(values, _prefix(stage, block))
                kind = str(values[f"{_prefix(stage, block)}operation"])
                with builder.block(f"stage_{stage}_block_{block}", kind):
                    value = operation.lower(builder, value, channels, 2 if halves else 1)
                    if operation.activated:
                        value = builder.add(builder.free("relu"), ReLU(), value)
        add_head(builder, value, self.classes)
        return builder.build()

    def _operation(self, values: Mapping[str, ChoiceValue], prefix: str) -> Operation:
        name = str(values[f"{prefix}operation"])
        if name != INVERTED_RESIDUAL:
            return self._operations[name]
        return InvertedResidual(
            kernel_size=int(values[f"{prefix}kernel_size"]),
            expansion=int(values[f"{prefix}expansion"]),
            squeeze_excite=bool(values[f"{prefix}squeeze_excite"]),
        )


def _prefix(stage: int, block: int) -> str:
    return f"stage_{stage}.block_{block}."
