"""A small graph of operations, the cell, repeated through a network.

Nodes are numbered from 0, the cell's input; an edge `J<-I` applies an operation to node I and adds the result to
node J; the last node is the cell's output. Operations that end in an activation elsewhere begin with it here.

The network is that of NAS-Bench-201: a stem, three stages of equal cells, and between them residual blocks that halve
the image and double the channels. With five cells a stage, 16 channels and that benchmark's operations the
multiply-accumulates and parameters are those of its tables.

Source: Dong and Yang 2020, NAS-Bench-201, section 2.1. We differ in the shortcut of a residual block, which pools over
3×3 rather than 2×2 pixels, so that images of odd sizes keep their border.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

from controller.core.architecture import Architecture, Choice, ChoiceValue
from controller.core.errors import SpaceError
from controller.core.mixing import AUXILIARY, ChannelSlice, Mixture, ShuffledConcat
from controller.core.network import INPUT, Network, NetworkBuilder
from controller.core.plugins import find_plugin
from controller.core.primitives import (
    Add,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    ReLU,
    Shape,
)
from controller.core.protocols import Rng
from controller.spaces.analysis import Figures, analysed
from controller.spaces.operations import OPERATIONS, ZERO, Operation
from controller.spaces.presets import PRESETS, Limits
from controller.spaces.recombination import check_options, crossed, drawn, mutated, one_of
from controller.spaces.skeleton import check_ascending, check_classes, stem_stride

OPERATION_NAMES = (
    ZERO,
    "skip_connect",
    "conv3x3",
    "conv5x5",
    "sep_conv3x3",
    "sep_conv5x5",
    "max_pool_3x3",
    "avg_pool_3x3",
)
NAS_BENCH_201 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The operations of that benchmark, by its names."""

CHANNELS = (8, 16, 24, 32)
CELLS = (1, 2, 3, 5)
_ABSENT = (ZERO, "none")
_STAGES = 3
_MOST_NODES = 7  # 720 orders of the inner five are still looked through in milliseconds

Edge = tuple[int, int]
"""(to, from)."""
Cell = Mapping[Edge, str]
"""Operation of each edge that leads somewhere."""


@dataclass(frozen=True, kw_only=True)
class CellSpace:
    """Networks of one repeated cell.

    Args:
        input_shape: (channels, height, width) of the images.
        classes: Number of classes.
        nodes: Nodes of the cell, its input and output among them.
        operations: Names of the operations to choose from; `zero`, or `none`, leaves an edge out.
        channels: Numbers of channels of the first stage to choose from, ascending.
        cells: Numbers of cells a stage to choose from, ascending.
        limits: Bounds on parameters, multiply-accumulates and activations of every proposal.

    Raises:
        SpaceError: If the arguments make no sense together.
        ConfigurationError: If nobody provides an operation.
    """

    input_shape: Shape
    classes: int
    nodes: int = 4
    operations: tuple[str, ...] = OPERATION_NAMES
    channels: tuple[int, ...] = CHANNELS
    cells: tuple[int, ...] = CELLS
    limits: Limits = PRESETS["edge"]

    def __post_init__(self) -> None:
        if not 2 <= self.nodes <= _MOST_NODES:
            raise SpaceError(f"nodes is {self.nodes}; expected 2, an input and an output, to {_MOST_NODES}")
        if not self.by_name:
            raise SpaceError("operations hold nothing but zero; add at least one that computes something")
        if len({name for name in self.operations if name in _ABSENT}) > 1:
            raise SpaceError("operations hold both zero and none, which are one; leave one of them out")
        check_ascending("channels", self.channels)
        check_ascending("cells", self.cells)
        check_classes(self.classes)

    @cached_property
    def by_name(self) -> Mapping[str, Operation]:
        """The operations that compute something."""
        return {
            name: find_plugin("operations", OPERATIONS, name)
            for name in self.operations
            if name not in _ABSENT
        }

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """All edges that a cell may have."""
        return tuple((to, source) for to in range(1, self.nodes) for source in range(to))

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """An operation for each edge; channels and cells where there is more than one number of them."""
        absent = tuple(name for name in self.operations if name in _ABSENT)[:1]
        operations: tuple[ChoiceValue, ...] = (*absent, *self.by_name)
        sizes: dict[str, tuple[ChoiceValue, ...]] = {"channels": self.channels, "cells": self.cells}
        return (
            *(Choice(name=edge_name(edge), options=operations) for edge in self.edges),
            *(Choice(name=name, options=options) for name, options in sizes.items() if len(options) > 1),
        )

    def sample(self, rng: Rng) -> Architecture:
        """Return a random architecture within the limits.

        Raises:
            SpaceError: If none of 2,000 samples is within the limits.
        """

        def attempt() -> Architecture | None:
            return self.compose({choice.name: one_of(choice.options, rng) for choice in self.choices})

        return drawn(attempt, self.limits)

    def mutate(self, architecture: Architecture, rng: Rng) -> Architecture:
        """Return a neighbour: another operation on one edge, or another number of channels or cells."""
        return mutated(self, architecture, rng)

    def cross(self, first: Architecture, second: Architecture, rng: Rng) -> Architecture:
        """Return a child: a contiguous block of edges comes from the second parent."""
        return crossed(self, first, second, rng)

    def compose(self, values: Mapping[str, ChoiceValue]) -> Architecture | None:
        """Return the canonical architecture with these values; None where it breaks a limit or nothing reaches the output."""
        cell = self._canonical(self._cell(values))
        if not cell:
            return None
        architecture = Architecture.of(self._values(cell, values))
        return architecture if self.limits.hold(self._figures(architecture)) else None

    def lower(self, architecture: Architecture) -> Network:
        """Return the network: a stem, three stages of cells with a reduction between them, a head.

        Raises:
            SpaceError: If architecture is not of this space, or nothing reaches the output of its cell.
        """
        check_options(self, architecture)
        cell = self._canonical(self._cell(architecture.values))
        if not cell:
            raise SpaceError(
                f"architecture {architecture.id} has no path from its cell's input, node 0, to its output, "
                f"node {self.nodes - 1}; expected an operation on every edge of at least one"
            )
        return self._network(cell, architecture.values)

    def mixed(self, part: int = 1) -> Network:
        """Return the supernet: every operation on every edge, added up by mixtures.

        An edge's mixture has the name of its choice and the operations as terms, and then the node's input itself as
        `auxiliary`; `node_J` mixes the edges that lead to node J. Sizes are the lower middle of those to choose from.

        Args:
            part: One in so many channels goes through the operations, the others pass by, where that divides them.

        Source: Liu et al. 2019, DARTS, section 2.2; Xu et al. 2020, PC-DARTS, section 3.2, for the channels that pass
        by; Chu et al. 2021, DARTS-, section 3.3, for the auxiliary input.
        """
        return self._skeleton(
            self.mixed_sizes(), lambda builder, source: self._mix_cell(builder, source, part)
        )

    def mixed_sizes(self) -> dict[str, ChoiceValue]:
        """Return the number of channels and of cells in the lower middle of those to choose from."""
        sizes = {"channels": self.channels, "cells": self.cells}
        return {name: options[(len(options) - 1) // 2] for name, options in sizes.items()}

    def bounds(self) -> Mapping[str, float]:
        """Return the limits by metric."""
        return self.limits.by_metric()

    def figures(self, architecture: Architecture) -> Mapping[str, float]:
        """Return what the network's graph tells.

        Raises:
            SpaceError: If architecture is not of this space.
        """
        return self._figures(architecture)

    @cached_property
    def _figures(self) -> Figures:
        return analysed(self.lower)

    def _cell(self, values: Mapping[str, ChoiceValue]) -> dict[Edge, str]:
        """Return the edges that lead from the input to the output, with their operations."""
        chosen = {edge: str(values[edge_name(edge)]) for edge in self.edges}
        present = {edge: name for edge, name in chosen.items() if name not in _ABSENT}
        fed, read = {0}, {self.nodes - 1}
        for to, source in present:  # in order of `to`
            if source in fed:
                fed.add(to)
        for to, source in sorted(present, reverse=True):
            if to in read:
                read.add(source)
        return {(to, source): name for (to, source), name in present.items() if to in read and source in fed}

    def _canonical(self, cell: Cell) -> dict[Edge, str]:
        """Return the one of all numberings of the inner nodes that comes first; a path of skips as a single one."""
        last = self.nodes - 1
        if _passes_on(cell) and cell:
            return {(last, 0): "skip_connect"}
        best: tuple[list[int], dict[Edge, str]] | None = None
        places = {name: place for place, name in enumerate(self.by_name, start=1)}
        for order in permutations(range(1, last)):
            number = (0, *order, last)
            renamed = {(number[to], number[source]): name for (to, source), name in cell.items()}
            if any(to <= source for to, source in renamed):
                continue
            key = [places.get(renamed.get(edge, ""), 0) for edge in self.edges]
            if best is None or key < best[0]:
                best = (key, renamed)
        return {edge: best[1][edge] for edge in self.edges if edge in best[1]} if best else {}

    def _values(self, cell: Cell, values: Mapping[str, ChoiceValue]) -> dict[str, ChoiceValue]:
        """Return one value for each choice: first options where they change nothing."""
        canonical = {choice.name: choice.options[0] for choice in self.choices}
        canonical |= {edge_name(edge): name for edge, name in cell.items()}
        if "channels" in canonical:
            canonical["channels"] = values["channels"]
        if "cells" in canonical and not _passes_on(cell):
            canonical["cells"] = values["cells"]
        return canonical

    def _network(self, cell: Cell, values: Mapping[str, ChoiceValue]) -> Network:
        return self._skeleton(values, lambda builder, source: self._lower_cell(builder, cell, source))

    def _skeleton(
        self, values: Mapping[str, ChoiceValue], add_cell: Callable[[NetworkBuilder, str], str]
    ) -> Network:
        """Return the network around the cells that add_cell adds."""
        channels = int(values.get("channels", self.channels[0]))
        count = int(values.get("cells", self.cells[0]))
        builder = NetworkBuilder(input_shape=self.input_shape)
        with builder.block("stem", "stem"):
            conv = builder.add("conv", Conv2d(channels, 3, stride=stem_stride(self.input_shape)), INPUT)
            value = builder.add("bn", BatchNorm2d(), conv)
        for stage in range(_STAGES):
            if stage:
                with builder.block(f"reduction_{stage}", "reduction"):
                    value = _reduction(builder, value, channels << stage)
            for index in range(stage * count + 1, (stage + 1) * count + 1):
                with builder.block(f"cell_{index}", "cell"):
                    value = add_cell(builder, value)
        with builder.block("head", "head"):
            value = builder.add("relu", ReLU(), builder.add("bn", BatchNorm2d(), value))
            builder.add("classifier", Linear(self.classes), builder.add("pool", GlobalAvgPool2d(), value))
        return builder.build()

    def _lower_cell(self, builder: NetworkBuilder, cell: Cell, source: str) -> str:
        """Add one cell's layers, an activation once for all edges that begin with it, and return its output."""
        nodes, activated = {0: source}, dict[int, str]()
        for to in range(1, self.nodes):
            terms = []
            for origin in (origin for target, origin in cell if target == to):
                operation = self.by_name[cell[to, origin]]
                if operation.activated and origin not in activated:
                    activated[origin] = builder.add(f"relu_{origin}", ReLU(), nodes[origin])
                value = activated[origin] if operation.activated else nodes[origin]
                with builder.prefix(f"edge_{to}_{origin}"):
                    terms.append(operation.lower(builder, value, builder.shape(source)[0], 1))
            if terms:
                nodes[to] = builder.add(f"node_{to}", Add(), *terms) if len(terms) > 1 else terms[0]
        return nodes[self.nodes - 1]

    def _mix_cell(self, builder: NetworkBuilder, source: str, part: int) -> str:
        channels = builder.shape(source)[0]
        mixed = channels // part if channels % part == 0 else channels
        nodes = [source]
        through: list[tuple[str, str]] = []  # what operations read of each node, as it is and activated
        for to in range(1, self.nodes):
            through.append(_readable(builder, nodes[-1], to - 1, mixed))
            arriving = []
            for origin, (value, activated) in enumerate(through):
                terms = []
                for name, operation in self.by_name.items():
                    with builder.prefix(f"edge_{to}_{origin}_{name}"):
                        terms.append(
                            operation.lower(builder, activated if operation.activated else value, mixed, 1)
                        )
                mixture = Mixture(edge_name((to, origin)), (*self.by_name, AUXILIARY))
                arrived = builder.add(f"edge_{to}_{origin}", mixture, *terms, value)
                if mixed < channels:
                    passing = builder.add(
                        f"passing_{to}_{origin}", ChannelSlice(mixed, channels), nodes[origin]
                    )
                    arrived = builder.add(f"joined_{to}_{origin}", ShuffledConcat(part), arrived, passing)
                arriving.append(arrived)
            mixture = Mixture(f"node_{to}", tuple(edge_name((to, origin)) for origin in range(to)))
            nodes.append(builder.add(f"node_{to}", mixture, *arriving))
        return nodes[-1]


def _readable(builder: NetworkBuilder, source: str, node: int, channels: int) -> tuple[str, str]:
    """Return the first channels of a node, as they are and activated."""
    if channels < builder.shape(source)[0]:
        source = builder.add(f"part_{node}", ChannelSlice(0, channels), source)
    return source, builder.add(f"relu_{node}", ReLU(), source)


def edge_name(edge: Edge) -> str:
    """Return the name of an edge's choice, e.g. `3<-1`."""
    return f"{edge[0]}<-{edge[1]}"


def _passes_on(cell: Cell) -> bool:
    """Return whether a cell's output is its input."""
    return set(cell.values()) <= {"skip_connect"} and len({to for to, _ in cell}) == len(cell)


def _reduction(builder: NetworkBuilder, source: str, channels: int) -> str:
    conv = builder.add("conv_1", Conv2d(channels, 3, stride=2), builder.add("relu_1", ReLU(), source))
    relu = builder.add("relu_2", ReLU(), builder.add("bn_1", BatchNorm2d(), conv))
    residual = builder.add("bn_2", BatchNorm2d(), builder.add("conv_2", Conv2d(channels, 3), relu))
    pooled = builder.add("shortcut_pool", AvgPool2d(3, stride=2), source)
    return builder.add("add", Add(), residual, builder.add("shortcut_conv", Conv2d(channels, 1), pooled))
