"""What an ONNX model holds according to the onnx package, to compare the agent's own reader with."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from device_agent.runtimes.onnx_scan import ExternalTensor, GraphInput, OnnxContents

NUMPY_NAMES = {"float": "float32", "double": "float64"}


def element_type(number: int) -> str:
    if number not in TensorProto.DataType.values() or number == TensorProto.UNDEFINED:
        return f"type {number}"
    name = TensorProto.DataType.Name(number).lower()
    return NUMPY_NAMES.get(name, name)


class Reference:
    """Walks the objects of the onnx package."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.operators = defaultdict(set)
        self.external = []
        self.elements = Counter()
        for function in model.functions:
            for node in function.node:
                self.node(node)
            for attribute in function.attribute_proto:
                self.attribute(attribute, function.name)
        self.graph(model.graph)

    def graph(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            self.node(node)
        for tensor in graph.initializer:
            self.tensor(tensor, "")
        for sparse in graph.sparse_initializer:
            self.sparse(sparse, "")

    def node(self, node: onnx.NodeProto) -> None:
        self.operators[normal(node.domain)].add(node.op_type)
        for attribute in node.attribute:
            self.attribute(attribute, node.op_type)

    def attribute(self, attribute: onnx.AttributeProto, owner: str) -> None:
        for tensor in present(attribute, "t", "tensors"):
            self.tensor(tensor, owner)
        for graph in present(attribute, "g", "graphs"):
            self.graph(graph)
        for sparse in present(attribute, "sparse_tensor", "sparse_tensors"):
            self.sparse(sparse, owner)

    def sparse(self, sparse: onnx.SparseTensorProto, owner: str) -> None:
        if sparse.HasField("values"):
            self.tensor(sparse.values, owner)
        if sparse.HasField("indices"):
            self.tensor(sparse.indices, sparse.values.name or owner)

    def tensor(self, tensor: onnx.TensorProto, owner: str) -> None:
        self.elements[element_type(tensor.data_type)] += math.prod(tensor.dims)
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            locations = [entry.value for entry in tensor.external_data if entry.key == "location"]
            self.external.append((tensor.name or owner, locations[-1] if locations else ""))


def contents_of(model: onnx.ModelProto) -> OnnxContents:
    found = Reference(model)
    filled = {tensor.name for tensor in model.graph.initializer}
    filled |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    return OnnxContents(
        ir_version=model.ir_version,
        operators={domain: frozenset(types) for domain, types in found.operators.items()},
        functions=frozenset((normal(function.domain), function.name) for function in model.functions),
        external_tensors=tuple(ExternalTensor(name=name, location=where) for name, where in found.external),
        stored_elements=dict(found.elements),
        inputs=tuple(graph_input(entry) for entry in model.graph.input if entry.name not in filled),
    )


def graph_input(entry: onnx.ValueInfoProto) -> GraphInput:
    kind = entry.type.tensor_type
    if entry.type.WhichOneof("value") != "tensor_type":
        return GraphInput(name=entry.name, element_type=None, dimensions=None)
    sizes = tuple(getattr(axis, axis.WhichOneof("value") or "", None) for axis in kind.shape.dim)
    return GraphInput(
        name=entry.name,
        element_type=element_type(kind.elem_type),
        dimensions=sizes if kind.HasField("shape") else None,
    )


def present(attribute: onnx.AttributeProto, single: str, several: str) -> Iterator:
    yield from getattr(attribute, several)
    if attribute.HasField(single):
        yield getattr(attribute, single)


def normal(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
