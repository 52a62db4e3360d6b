"""Looks through the bytes of an ONNX model for what the agent judges it by; weights are stepped over."""

import mmap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_agent.benchmark import FailureReason
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes import onnx_tags as tags
from device_agent.runtimes.protobuf_fields import Fields, Span, not_onnx, signed

GRAPH_DEPTH_LIMIT = 34
"""Graphs inside graphs, the main one counted. Protobuf itself reads 100 messages deep, and each is three."""
NAME_LIMIT = 20_000
"""Different names to keep of one file: operators, functions, inputs and their axes."""
EXTERNAL_LIMIT = 1_000
"""External tensors to keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalTensor:
    """A tensor whose values stand in another file; `location` is that file as the model names it."""

    name: str
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphInput:
    """An input that a caller must fill.

    Attributes:
        element_type: E.g. `float32`; None where the input is no dense tensor.
        dimensions: The declared size of each axis, whatever its sign, or its name, or None where it has
            neither; None as a whole where not even the number of axes is declared.
    """

    name: str
    element_type: str | None
    dimensions: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxContents:
    """What an ONNX file holds. The domain `ai.onnx` is written as the empty text, its other name.

    Attributes:
        operators: The operator types used in each domain, those in subgraphs and in functions included.
        functions: Domain and name of each function that the model itself defines.
        external_tensors: The first `EXTERNAL_LIMIT` of them.
        stored_elements: Numbers that the model stores as initializers and constants, by element type.
        inputs: Those of the main graph that have no initializer.
    """

    ir_version: int
    operators: Mapping[str, frozenset[str]]
    functions: frozenset[tuple[str, str]]
    external_tensors: tuple[ExternalTensor, ...]
    stored_elements: Mapping[str, int]
    inputs: tuple[GraphInput, ...]


def scan(data: bytes | mmap.mmap) -> OnnxContents:
    """Return what a whole ONNX file holds.

    Raises:
        BenchmarkFailedError: INVALID_MODEL, where the bytes are no ONNX model.
    """
    return _Scan(data).model([(0, len(data))])


class _Scan:
    """Gathers what one file holds. A method named after a message reads one, given as its pieces."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._fields = Fields(data)
        self._names_left = NAME_LIMIT
        self._operators: defaultdict[str, set[str]] = defaultdict(set)
        self._functions: set[tuple[str, str]] = set()
        self._external: list[ExternalTensor] = []
        self._elements: Counter[str] = Counter()
        self._inputs: dict[str, GraphInput] = {}
        self._filled: set[str] = set()

    def model(self, message: Sequence[Span]) -> OnnxContents:
        ir_version = 0
        graph = []
        for tag, first, end in self._fields.of(message):
            if tag == tags.MODEL_IR_VERSION:
                ir_version = signed(first)
            elif tag == tags.MODEL_GRAPH:
                graph.append((first, end))
            elif tag == tags.MODEL_FUNCTIONS:
                self._function([(first, end)])
            # Not training_info: nothing that only runs models reads it.
        if not graph:
            raise not_onnx("it has no graph")
        if ir_version < 1:
            raise not_onnx(f"its format version is {ir_version or 'missing'}")
        # Inputs before everything else: only the initializers of inputs are of interest by name.
        for tag, first, end in self._fields.of(graph):
            if tag == tags.GRAPH_INPUT:
                self._input([(first, end)])
        self._graph(graph, depth=1)
        return OnnxContents(
            ir_version=ir_version,
            operators={domain: frozenset(types) for domain, types in self._operators.items()},
            functions=frozenset(self._functions),
            external_tensors=tuple(self._external),
            stored_elements=dict(self._elements),
            inputs=tuple(entry for name, entry in self._inputs.items() if name not in self._filled),
        )

    def _function(self, message: Sequence[Span]) -> None:
        domain = name = ""
        for tag, first, end in self._fields.of(message):
            if tag == tags.FUNCTION_NAME:
                name = self._fields.text(first, end)
            elif tag == tags.FUNCTION_DOMAIN:
                domain = self._domain(first, end)
            elif tag == tags.FUNCTION_NODE:
                self._node([(first, end)], depth=1)
            elif tag == tags.FUNCTION_ATTRIBUTE_PROTO:
                self._attribute([(first, end)], depth=1, owner=name)
        self._count_name()
        self._functions.add((domain, name))

    def _graph(self, message: Sequence[Span], *, depth: int) -> None:
        if depth > GRAPH_DEPTH_LIMIT:
            raise not_onnx(f"it nests graphs more than {GRAPH_DEPTH_LIMIT} deep")
        for tag, first, end in self._fields.of(message):
            if tag == tags.GRAPH_NODE:
                self._node([(first, end)], depth=depth)
            elif tag in (tags.GRAPH_INITIALIZER, tags.GRAPH_SPARSE_INITIALIZER):
                read = self._tensor if tag == tags.GRAPH_INITIALIZER else self._sparse
                name = read([(first, end)], owner="")
                if depth == 1 and name in self._inputs:
                    self._filled.add(name)

    def _node(self, message: Sequence[Span], *, depth: int) -> None:
        domain = operator = ""
        attributes = []
        for tag, first, end in self._fields.of(message):
            if tag == tags.NODE_OP_TYPE:
                operator = self._fields.text(first, end)
            elif tag == tags.NODE_DOMAIN:
                domain = self._domain(first, end)
            elif tag == tags.NODE_ATTRIBUTE:
                attributes.append((first, end))
        types = self._operators[domain]
        if operator not in types:
            self._count_name()
            types.add(operator)
        for attribute in attributes:
            self._attribute([attribute], depth=depth, owner=operator)
        if operator == "EPContext":
            self._compiled_network(attributes)

    def _attribute(self, message: Sequence[Span], *, depth: int, owner: str) -> None:
        tensor, graph, sparse = [], [], []
        for tag, first, end in self._fields.of(message, runs=True):
            if tag == tags.ATTRIBUTE_T:
                tensor.append((first, end))
            elif tag == tags.ATTRIBUTE_G:
                graph.append((first, end))
            elif tag == tags.ATTRIBUTE_SPARSE_TENSOR:
                sparse.append((first, end))
            elif tag == tags.ATTRIBUTE_TENSORS:
                self._tensor([(first, end)], owner=owner)
            elif tag == tags.ATTRIBUTE_GRAPHS:
                self._graph([(first, end)], depth=depth + 1)
            elif tag == tags.ATTRIBUTE_SPARSE_TENSORS:
                self._sparse([(first, end)], owner=owner)
        if tensor:
            self._tensor(tensor, owner=owner)
        if graph:
            self._graph(graph, depth=depth + 1)
        if sparse:
            self._sparse(sparse, owner=owner)

    def _compiled_network(self, attributes: Sequence[Span]) -> None:
        """Note where an EPContext, a network compiled for one provider, is kept: inside only by `embed_mode` 1."""
        embedded, location = True, (0, 0)
        for attribute in attributes:
            name, number, text = "", 0, (0, 0)
            for tag, first, end in self._fields.of([attribute]):
                if tag == tags.ATTRIBUTE_NAME:
                    name = self._fields.text(first, end)
                elif tag == tags.ATTRIBUTE_I:
                    number = first
                elif tag == tags.ATTRIBUTE_S:
                    text = (first, end)
            if name == "embed_mode":
                embedded = number == 1
            elif name == "ep_cache_context":
                location = text
        if not embedded:
            self._keep_external("EPContext", self._fields.text(*location))

    def _tensor(self, message: Sequence[Span], *, owner: str) -> str:
        """Return the tensor's name."""
        name, location = "", ""
        elements, element_type = 1, 0
        external = False
        for tag, first, end in self._fields.of(message):
            if tag == tags.TENSOR_DIMS:
                elements = _grown(elements, first)
            elif tag == tags.TENSOR_PACKED_DIMS:
                for size in self._fields.packed(first, end):
                    elements = _grown(elements, size)
            elif tag == tags.TENSOR_DATA_TYPE:
                element_type = first
            elif tag == tags.TENSOR_NAME:
                name = self._fields.text(first, end)
            elif tag == tags.TENSOR_DATA_LOCATION:
                external = external or first == tags.EXTERNAL
            elif tag == tags.TENSOR_EXTERNAL_DATA:
                external = True
                location = self._location([(first, end)], location)
        self._elements[_element_type(element_type)] += elements
        if external:
            self._keep_external(name or owner, location)
        return name

    def _location(self, message: Sequence[Span], known: str) -> str:
        """Return the location that an entry of external data gives, or the known one where it gives none."""
        key = value = ""
        for tag, first, end in self._fields.of(message):
            if tag == tags.ENTRY_KEY:
                key = self._fields.text(first, end)
            elif tag == tags.ENTRY_VALUE:
                value = self._fields.text(first, end)
        return value if key == "location" else known

    def _sparse(self, message: Sequence[Span], *, owner: str) -> str:
        """Return the sparse tensor's name, which is that of its values."""
        values, indices = [], []
        for tag, first, end in self._fields.of(message):
            if tag == tags.SPARSE_VALUES:
                values.append((first, end))
            elif tag == tags.SPARSE_INDICES:
                indices.append((first, end))
        name = self._tensor(values, owner=owner) if values else ""
        if indices:
            self._tensor(indices, owner=name or owner)
        return name

    def _input(self, message: Sequence[Span]) -> None:
        name, kind, tensor = "", [], []
        for tag, first, end in self._fields.of(message):
            if tag == tags.VALUE_NAME:
                name = self._fields.text(first, end)
            elif tag == tags.VALUE_TYPE:
                kind.append((first, end))
        for tag, first, end in self._fields.of(kind):
            if tag == tags.TYPE_TENSOR:
                tensor.append((first, end))
            elif tag in tags.TYPE_OTHERS:
                # One of several: the last one given counts.
                tensor.clear()
        element_type, shape = 0, []
        for tag, first, end in self._fields.of(tensor):
            if tag == tags.TENSOR_TYPE_ELEM_TYPE:
                element_type = first
            elif tag == tags.TENSOR_TYPE_SHAPE:
                shape.append((first, end))
        self._count_name()
        self._inputs[name] = GraphInput(
            name=name,
            element_type=_element_type(element_type) if tensor else None,
            dimensions=self._shape(shape) if shape else None,
        )

    def _shape(self, message: Sequence[Span]) -> tuple[int | str | None, ...]:
        sizes: list[int | str | None] = []
        for tag, first, end in self._fields.of(message):
            if tag != tags.SHAPE_DIM:
                continue
            size: int | str | None = None
            for inner, start, stop in self._fields.of([(first, end)]):
                if inner == tags.DIM_VALUE:
                    size = signed(start)
                elif inner == tags.DIM_PARAM:
                    size = self._fields.text(start, stop)
            self._count_name()
            sizes.append(size)
        return tuple(sizes)

    def _domain(self, start: int, end: int) -> str:
        domain = self._fields.text(start, end)
        return "" if domain == "ai.onnx" else domain

    def _count_name(self) -> None:
        self._names_left -= 1
        if self._names_left < 0:
            raise BenchmarkFailedError(
                FailureReason.INVALID_MODEL,
                f"the ONNX model names more than {NAME_LIMIT} operators, functions and axes of inputs, more than this "
                "agent looks through; export a smaller model",
            )

    def _keep_external(self, name: str, location: str) -> None:
        if len(self._external) < EXTERNAL_LIMIT:
            self._external.append(ExternalTensor(name=name, location=location))


def _element_type(number: int) -> str:
    return tags.ELEMENT_TYPES.get(number, f"type {number}")


def _grown(elements: int, size: int) -> int:
    """Return elements times size, bounded: a model may claim any number of axes of any size."""
    return min(elements * max(signed(size), 0), 1 << 62)
