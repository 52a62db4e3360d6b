"""Protobuf messages written by hand, for files that no library would write."""


def varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def field(number: int, payload: bytes) -> bytes:
    """Return a length-delimited field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def number_field(number: int, value: int) -> bytes:
    """Return a varint field; a negative value as int64."""
    return varint(number << 3) + varint(value % (1 << 64))


def onnx_model(graph: bytes, rest: bytes = b"") -> bytes:
    return number_field(1, 8) + field(7, graph) + rest


def nested_graphs(depth: int) -> bytes:
    """Return a model whose main graph holds `depth` graphs, one inside the other."""
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    return onnx_model(graph)
