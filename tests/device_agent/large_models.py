"""A model of any size that is made a chunk at a time, so that who sends it never holds it."""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import onnx
from agent_harness import Agent
from edgenas.v1 import model_pb2
from onnx import TensorProto, helper

MIB = 1 << 20
COLUMNS = 4096
UPLOAD_LIMIT_S = 300


def varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def field_head(number: int, size: int) -> bytes:
    """Return what stands before a length-delimited field of that size."""
    return varint(number << 3 | 2) + varint(size)


@dataclass(frozen=True)
class LargeModel:
    """A table of about `weight_bytes` of which each inference takes a row, as an ONNX file."""

    weight_bytes: int

    @property
    def rows(self) -> int:
        return self.weight_bytes // (4 * COLUMNS)

    def head(self) -> bytes:
        """Return all of the file but the numbers of the table, which are its end."""
        size = 4 * COLUMNS * self.rows
        table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[self.rows, COLUMNS])
        tensor = table.SerializeToString() + field_head(9, size)
        graph = helper.make_graph(
            [helper.make_node("Gather", ["table", "row"], ["y"])],
            "large",
            [helper.make_tensor_value_info("row", TensorProto.INT64, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, COLUMNS])],
        ).SerializeToString()
        graph += field_head(5, len(tensor) + size) + tensor
        model = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)])
        return model.SerializeToString() + field_head(7, len(graph) + size) + graph

    @property
    def size_bytes(self) -> int:
        return len(self.head()) + 4 * COLUMNS * self.rows

    def chunks(self) -> Iterator[bytes]:
        """Yield the file in pieces of at most 1 MiB, no two of them alike."""
        yield self.head()
        numbers = numpy.random.default_rng(0).standard_normal(MIB // 4).astype("float32")
        left = 4 * COLUMNS * self.rows
        shift = 0
        while left:
            piece = numpy.roll(numbers, shift).tobytes()[:left]
            yield piece
            left -= len(piece)
            shift += 1

    @functools.cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def parts(self) -> Iterator[model_pb2.UploadModelRequest]:
        header = model_pb2.UploadModelHeader(
            sha256=self.sha256, format=model_pb2.MODEL_FORMAT_ONNX, size_bytes=self.size_bytes
        )
        yield model_pb2.UploadModelRequest(header=header)
        for chunk in self.chunks():
            yield model_pb2.UploadModelRequest(chunk=chunk)

    def upload(self, agent: Agent) -> str:
        return agent.models.UploadModel(self.parts(), timeout=UPLOAD_LIMIT_S).sha256


class PeakMemory:
    """How far a process's resident memory has grown at its highest since this was made."""

    def __init__(self, pid: int) -> None:
        self.process = Path(f"/proc/{pid}")
        # Forget the earlier high-water mark.
        (self.process / "clear_refs").write_text("5")
        self.before_kib = self.status_kib("VmRSS")

    def status_kib(self, name: str) -> int:
        lines = (self.process / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])

    def growth_mib(self) -> float:
        return (self.status_kib("VmHWM") - self.before_kib) / 1024
