"""Why the agent refuses a TorchScript archive, found without torch reading it.

An archive is a zip file in which everything stands below one folder:

    net/data.pkl                        the module's structure
    net/constants.pkl                   tensors that the code names
    net/code/__torch__/....py           the code; deflated, while everything else is stored as it is
    net/data/0, net/data/1, ...         the weights
    net/version, net/byteorder, ...

It is read here rather than by `zipfile`, which believes the file about the memory that its list needs, and
finds a list where torch finds another.

Source: torch 2.14, torch/csrc/jit/serialization/export_module.cpp and caffe2/serialize/inline_container.cc;
PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.14 to 4.3.16
"""

import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.benchmark import FailureReason
from device_agent.errors import BenchmarkFailedError
from device_agent.text import shown

ENTRY_LIMIT = 20_000
NAME_LIMIT_BYTES = 1 << 10
"""Entries in one archive. MobileNetV2 has 501."""
CODE_LIMIT_BYTES = 64 << 20
"""Unpacked size of the code, all in all. MobileNetV2's has 0.2 MB."""

_LOCAL = struct.Struct("<4s5H3L2H")
_LISTED = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1
_IN_64_BITS = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One entry as the archive's list tells it."""

    name: str
    method: int
    encrypted: bool
    packed_bytes: int
    unpacked_bytes: int
    header_at: int

    @property
    def inner_name(self) -> str:
        """The name below the archive's one folder."""
        return self.name.partition("/")[2]


def check(path: Path) -> None:
    """Return if torch may see a file.

    Raises:
        BenchmarkFailedError: INVALID_MODEL, where it is no archive of `torch.jit.save`, or one that is made
            to harm who unpacks it.
    """
    with path.open("rb") as file:
        if path.stat().st_size < _END.size:
            raise _not_torchscript("it is no zip archive")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            entries, list_at = _listed(data)
            _check_names(entries)
            _check_sizes(entries)
            _check_places(data, entries, list_at)


def _listed(data: mmap.mmap) -> tuple[list[_Entry], int]:
    """Return the entries that an archive lists at its end, and where that list begins."""
    count, size, list_at, list_end = _end(data)
    if count > ENTRY_LIMIT:
        raise _not_torchscript(f"it has {count} entries, this agent reads {ENTRY_LIMIT}")
    if list_at + size != list_end:
        raise _not_torchscript(
            f"its list of entries, {size} bytes from {list_at}, does not end at byte {list_end}"
        )
    entries = []
    at = list_at
    for _ in range(count):
        entry, at = _entry(data, at)
        entries.append(entry)
    if at != list_end:
        raise _not_torchscript(f"its list has {count} entries up to byte {at} instead of {list_end}")
    return entries, list_at


def _end(data: mmap.mmap) -> tuple[int, int, int, int]:
    """Return the number of entries, and size, begin and end of their list.

    torch ends an archive without a comment. Readers search for the end of one that has a comment, and not
    all of them find the same.
    """
    end_at = len(data) - _END.size
    mark, disk, list_disk, _, count, size, list_at, comment = _unpack(data, _END, end_at)
    if data[:4] != b"PK\x03\x04" or mark != b"PK\x05\x06" or comment:
        raise _not_torchscript("it is no zip archive, or has something before or behind it")
    locator_at = end_at - _LOCATOR.size
    if locator_at >= 0 and data[locator_at : locator_at + 4] == b"PK\x06\x07":
        end_at = locator_at - _END64.size
        _, _, end64_at, _ = _unpack(data, _LOCATOR, locator_at)
        mark, _, _, _, disk, list_disk, _, count, size, list_at = _unpack(data, _END64, end_at)
        if mark != b"PK\x06\x06" or end64_at != end_at:
            raise _not_torchscript("its 64-bit end does not stand where its locator says")
    if disk or list_disk:
        raise _not_torchscript("it is part of a series of archives")
    return count, size, list_at, end_at


def _entry(data: mmap.mmap, at: int) -> tuple[_Entry, int]:
    """Return the entry that stands at a place in the list, and the place behind it."""
    fields = _unpack(data, _LISTED, at)
    mark, _, _, flags, method, _, _, _, packed, unpacked, name_size, extra_size, comment_size = fields[:13]
    header_at = fields[-1]
    at += _LISTED.size
    if name_size > NAME_LIMIT_BYTES:
        raise _not_torchscript(
            f"an entry has a name of {name_size} bytes, this agent reads {NAME_LIMIT_BYTES}"
        )
    encoded = data[at : at + name_size]
    try:
        name = encoded.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_torchscript(f"the name {encoded[:100]!r} is no text") from error
    if mark != b"PK\x01\x02" or len(encoded) < name_size:
        raise _not_torchscript(f"there is no entry at byte {at - _LISTED.size} of its list")
    if _IN_64_BITS in (packed, unpacked, header_at):
        raise _not_torchscript(f"the entry '{shown(name)}' has 4 GiB or more")
    entry = _Entry(
        name=name,
        method=method,
        encrypted=bool(flags & _ENCRYPTED),
        packed_bytes=packed,
        unpacked_bytes=unpacked,
        header_at=header_at,
    )
    return entry, at + name_size + extra_size + comment_size


def _check_names(entries: Sequence[_Entry]) -> None:
    names = set()
    for entry in entries:
        parts = entry.name.split("/")
        drive = parts[0][1:2] == ":"
        if {"", ".", ".."} & set(parts) or drive or "\\" in entry.name or not entry.name.isprintable():
            raise _not_torchscript(f"the name '{shown(entry.name)}' leads out of the archive")
        if entry.name in names:
            raise _not_torchscript(f"it has the entry '{shown(entry.name)}' twice")
        names.add(entry.name)
    folders = {name.partition("/")[0] for name in names}
    if len(folders) != 1:
        raise _not_torchscript(f"at its top it has {len(folders)} names instead of one folder")
    missing = list(_missing({entry.inner_name for entry in entries}))
    if missing:
        raise _not_torchscript(f"{' and '.join(missing)} is missing (torch.save keeps weights without code)")


def _missing(inner_names: set[str]) -> Iterator[str]:
    for name in ("data.pkl", "constants.pkl", "version"):
        if name not in inner_names:
            yield name
    if not any(name.startswith("code/") for name in inner_names):
        yield "code/"


def _check_sizes(entries: Sequence[_Entry]) -> None:
    code_bytes = 0
    for entry in entries:
        name = shown(entry.name)
        if entry.encrypted:
            raise _not_torchscript(f"the entry '{name}' is encrypted")
        if entry.method == _DEFLATED and entry.inner_name.startswith("code/"):
            code_bytes += entry.unpacked_bytes
        elif entry.method != _STORED or entry.packed_bytes != entry.unpacked_bytes:
            raise _not_torchscript(
                f"the entry '{name}' is {entry.unpacked_bytes} bytes packed into {entry.packed_bytes}, and torch "
                "packs nothing but code (a zip bomb?)"
            )
    if code_bytes > CODE_LIMIT_BYTES:
        raise _not_torchscript(
            f"its code has {code_bytes} bytes when unpacked, this agent allows {CODE_LIMIT_BYTES} (a zip bomb?)"
        )


def _check_places(data: mmap.mmap, entries: Sequence[_Entry], list_at: int) -> None:
    """Check that each entry stands where the list says, and that no two share bytes."""
    free_from = 0
    for entry in sorted(entries, key=lambda entry: entry.header_at):
        start = entry.header_at
        mark, *_, name_size, extra_size = _unpack(data, _LOCAL, start)
        name_at = start + _LOCAL.size
        end = name_at + name_size + extra_size + entry.packed_bytes
        if start < free_from or mark != b"PK\x03\x04" or end > list_at:
            raise _not_torchscript(
                f"the entry '{shown(entry.name)}' does not stand at byte {start}, or shares bytes with another "
                "(a zip bomb?)"
            )
        if data[name_at : name_at + name_size] != entry.name.encode():
            raise _not_torchscript(f"the entry '{shown(entry.name)}' has another name where it stands")
        free_from = end


def _unpack(data: mmap.mmap, layout: struct.Struct, at: int) -> tuple[Any, ...]:
    if not 0 <= at <= len(data) - layout.size:
        raise _not_torchscript("it is cut off")
    return layout.unpack_from(data, at)


def _not_torchscript(detail: str) -> BenchmarkFailedError:
    return BenchmarkFailedError(
        FailureReason.INVALID_MODEL,
        f"the file is no TorchScript archive: {detail}; save the model with torch.jit.save and upload that file",
    )
