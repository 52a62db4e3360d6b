"""Reads protobuf's wire format without a schema, as far as a model file needs it.

A message is a list of spans of the file: protobuf lets a writer give an embedded message in several pieces,
and reading those one after the other is what merging them means.

Source: https://protobuf.dev/programming-guides/encoding
"""

import mmap
import re
from collections.abc import Iterator, Sequence

from device_agent.benchmark import FailureReason
from device_agent.errors import BenchmarkFailedError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}

FIELD_LIMIT = 3_000_000
"""Fields to look at in one file: about a second's work. ResNet-152 has 8,000."""
TEXT_LIMIT_BYTES = 4 << 10
"""Longest name to read. Documentation strings, which may be longer, are never read."""
RUN_TAGS = (7 << 3 | FIXED32, 8 << 3 | VARINT)
"""Floats and ints of an attribute: they are rarely packed, and a tree ensemble has millions of them."""
RUN = re.compile(rb"(?:\x3d.{4}|\x40[\x80-\xff]{0,9}[\x00-\x7f]){4,1000}", re.DOTALL)
"""Several of them. Not any number: the matcher needs memory for each repetition."""
RUN_BYTES_A_FIELD = 32
"""Bytes of a run that take as long as one field."""

Span = tuple[int, int]


def not_onnx(detail: str) -> BenchmarkFailedError:
    """Return the error for a file that is no ONNX model; `detail` says why in a clause."""
    return BenchmarkFailedError(
        FailureReason.INVALID_MODEL,
        f"the file is no ONNX model: {detail}; export the model again and upload that file",
    )


def signed(value: int) -> int:
    """Return the int64 or int32 that a varint's 64 bits mean."""
    return value - (1 << 64) if value >> 63 else value


class Fields:
    """The fields of a file's messages, for one reading of it.

    Args:
        data: The whole file. Payloads that nobody asks for are never touched, so that a mapped file of
            gigabytes costs no memory.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._left = FIELD_LIMIT

    def of(self, message: Sequence[Span], *, runs: bool = False) -> Iterator[tuple[int, int, int]]:
        """Yield each field of a message as its tag and two numbers.

        The tag is `number << 3 | wire type`. For a varint the first number is its value, unsigned; for
        everything else the two are where the payload begins and ends.

        Args:
            message: Where the message stands.
            runs: Whether to step over runs of `RUN_TAGS` without yielding them.

        Raises:
            BenchmarkFailedError: INVALID_MODEL, where the bytes are no protobuf message, or one with more
                than `FIELD_LIMIT` fields.
        """
        data = self._data
        for at, end in message:
            while at < end:
                start = at
                if runs and data[at] in RUN_TAGS and (found := RUN.match(data, at, end)):
                    at = found.end()
                    self._charge((at - start) // RUN_BYTES_A_FIELD)
                    continue
                self._charge(1)
                tag, at = (data[at], at + 1) if data[at] < 0x80 else self._varint(at, end)
                if not 8 <= tag < 1 << 32:
                    raise not_onnx(f"the field at byte {start} has the number {tag >> 3}")
                kind = tag & 7
                if kind == VARINT:
                    value, at = self._varint(at, end)
                    yield tag, value, at
                    continue
                if kind == LENGTH:
                    size, at = self._varint(at, end)
                elif kind in FIXED_BYTES:
                    size = FIXED_BYTES[kind]
                else:
                    raise not_onnx(f"the field at byte {start} has the wire type {kind}")
                if size > end - at:
                    raise not_onnx(
                        f"the field at byte {start} ends {size - (end - at)} bytes behind its message"
                    )
                yield tag, at, at + size
                at += size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return the varint at a place, 64 bits unsigned, and the place behind it.

        Raises:
            BenchmarkFailedError: INVALID_MODEL, where there is none before `end`.
        """
        data = self._data
        if at < end and data[at] < 0x80:
            return data[at], at + 1
        value = shift = 0
        for place in range(at, min(end, at + 10)):
            byte = data[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, place + 1
            shift += 7
        raise not_onnx(f"the number at byte {at} does not end")

    def text(self, start: int, end: int) -> str:
        """Return a payload as text.

        Raises:
            BenchmarkFailedError: INVALID_MODEL, where it is too long for a name.
        """
        if end - start > TEXT_LIMIT_BYTES:
            raise not_onnx(f"the name at byte {start} has {end - start} bytes")
        return self._data[start:end].decode("utf-8", "replace")

    def packed(self, start: int, end: int) -> Iterator[int]:
        """Yield the varints that stand one after the other in a payload.

        Raises:
            BenchmarkFailedError: INVALID_MODEL, where the last one is cut off.
        """
        while start < end:
            self._charge(1)
            value, start = self._varint(start, end)
            yield value

    def _charge(self, fields: int) -> None:
        self._left -= fields
        if self._left < 0:
            raise BenchmarkFailedError(
                FailureReason.INVALID_MODEL,
                f"the ONNX model has more than {FIELD_LIMIT} fields, more than this agent looks through; "
                "keep weights in raw_data, as onnx.numpy_helper.from_array writes them",
            )
