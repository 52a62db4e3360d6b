"""What the agent says of TorchScript archives that torch does not get to see."""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.benchmark import FailureReason
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes.torchscript_file import CODE_LIMIT_BYTES, ENTRY_LIMIT, check

# torch has deprecated TorchScript, which boards still run.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

PARTS = {
    "data.pkl": b"structure",
    "code/__torch__.py": b"code " * 100,
    "constants.pkl": b"constants",
    "data/0": b"weights!" * 64,
    "version": b"3\n",
}


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3)
        self.norm = torch.nn.BatchNorm2d(8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.convolution(image)))


def archive(
    parts: Mapping[str, bytes] = PARTS,
    *,
    folder: str = "net/",
    packed: tuple[str, ...] = ("code/__torch__.py",),
) -> bytes:
    """Return a zip archive; parts named in `packed` are deflated."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, data in parts.items():
            kind = zipfile.ZIP_DEFLATED if name in packed else zipfile.ZIP_STORED
            opened.writestr(zipfile.ZipInfo(folder + name), data, compress_type=kind)
    return file.getvalue()


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(BenchmarkFailedError) as caught:
        check(path)
    message = str(caught.value)
    assert caught.value.reason is FailureReason.INVALID_MODEL
    assert "\n" not in message
    assert message.startswith("the file is no TorchScript archive: ")
    return message.removeprefix("the file is no TorchScript archive: ")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pt"


def saved(path: Path, module: torch.jit.ScriptModule, **options: object) -> None:
    torch.jit.save(module, path, **options)


@pytest.mark.parametrize(
    "save",
    [
        lambda path: saved(path, torch.jit.script(Network().eval())),
        lambda path: saved(path, torch.jit.trace(Network().eval(), torch.zeros(1, 3, 16, 16))),
        lambda path: saved(path, torch.jit.freeze(torch.jit.script(Network().eval()))),
        lambda path: saved(path, torch.jit.script(Network()), _extra_files={"labels.txt": "cat\ndog\n" * 99}),
    ],
    ids=["scripted", "traced", "frozen", "with extra files"],
)
def test_what_torch_saves_is_let_through(path: Path, save: Callable[[Path], None]):
    save(path)
    check(path)


def test_an_archive_of_the_same_layout_is_let_through(path: Path):
    path.write_bytes(archive())
    check(path)


def test_weights_without_code_are_refused(path: Path):
    torch.save(Network().state_dict(), path)
    assert refusal(path, path.read_bytes()) == (
        "constants.pkl and code/ is missing (torch.save keeps weights without code); save the model with "
        "torch.jit.save and upload that file"
    )


@pytest.mark.parametrize("missing", ["data.pkl", "constants.pkl", "version"])
def test_an_archive_without_one_of_its_parts_is_refused(path: Path, missing: str):
    parts = {name: data for name, data in PARTS.items() if name != missing}
    assert refusal(path, archive(parts)).startswith(f"{missing} is missing")


@pytest.mark.parametrize(
    "data", [b"", b"no archive", b"PK\x05\x06" + bytes(18), archive({}), archive()[:-1], archive()[:200]]
)
def test_what_is_no_archive_is_refused(path: Path, data: bytes):
    refusal(path, data)


@pytest.mark.parametrize("data", [b"#!/bin/sh\n" + archive(), archive() + b"more", b"MZ" + archive()])
def test_an_archive_with_something_around_it_is_refused(path: Path, data: bytes):
    assert refusal(path, data).startswith("it is no zip archive, or has something before or behind it")


@pytest.mark.parametrize(
    ("comment", "why"),
    [(b"a word", "something before or behind it"), (archive(), "does not end at byte")],
    ids=["text", "another archive"],
)
def test_an_archive_with_a_comment_is_refused(path: Path, comment: bytes, why: str):
    file = io.BytesIO(archive())
    with zipfile.ZipFile(file, "a") as opened:
        opened.comment = comment
    assert why in refusal(path, file.getvalue())


def test_packed_weights_are_refused(path: Path):
    bomb = archive({**PARTS, "data/1": bytes(10 << 20)}, packed=("data/1",))
    message = refusal(path, bomb)
    assert message.startswith("the entry 'net/data/1' is 10485760 bytes packed into ")
    assert "torch packs nothing but code (a zip bomb?)" in message


def test_code_that_unpacks_to_too_much_is_refused(path: Path):
    half = bytes(CODE_LIMIT_BYTES // 2)
    parts = {**PARTS, "code/a.py": half, "code/b.py": half}
    message = refusal(path, archive(parts, packed=("code/__torch__.py", "code/a.py", "code/b.py")))
    assert message.startswith(
        "its code has 67109364 bytes when unpacked, this agent allows 67108864 (a zip bomb?)"
    )


def test_a_size_that_an_entry_only_claims_is_refused(path: Path):
    data = bytearray(archive())
    listed = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02", data.rindex(b"net/constants.pkl")))
    # The unpacked size of the entry after constants.pkl, in the list.
    struct.pack_into("<L", data, listed + 24, 1 << 31)
    assert "is 2147483648 bytes packed into" in refusal(path, bytes(data))


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/cron.d/job",
        "/etc/passwd",
        "net/../../x",
        "net//x",
        "./x",
        "net\\..\\x",
        "C:/x",
        "net/a\nb",
        "x/",
    ],
)
def test_names_that_lead_out_of_the_archive_are_refused(path: Path, name: str):
    file = io.BytesIO(archive())
    with zipfile.ZipFile(file, "a") as opened:
        opened.writestr(zipfile.ZipInfo(name), b"")
    assert "leads out of the archive" in refusal(path, file.getvalue())


def test_a_name_with_a_nul_is_refused(path: Path):
    data = archive({**PARTS, "data/1": b""}).replace(b"net/data/1", b"net/data\x00/")
    assert "the name 'net/data\\x00/' leads out of the archive" in refusal(path, data)


def test_a_name_that_is_no_text_is_refused(path: Path):
    assert "is no text" in refusal(path, archive().replace(b"net/data/0", b"net/data\xff0"))


def test_a_second_folder_is_refused(path: Path):
    file = io.BytesIO(archive())
    with zipfile.ZipFile(file, "a") as opened:
        opened.writestr(zipfile.ZipInfo("other/version"), b"3\n")
    assert refusal(path, file.getvalue()).startswith("at its top it has 2 names instead of one folder")


def test_an_entry_that_is_there_twice_is_refused(path: Path):
    data = archive({**PARTS, "data/1": b""}).replace(b"net/data/1", b"net/data/0")
    assert refusal(path, data).startswith("it has the entry 'net/data/0' twice")


def test_an_encrypted_entry_is_refused(path: Path):
    data = bytearray(archive())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refusal(path, bytes(data)).startswith("the entry 'net/data.pkl' is encrypted")


def test_a_name_that_differs_where_the_entry_stands_is_refused(path: Path):
    data = archive()
    at = data.index(b"net/data/0")
    assert refusal(path, data[:at] + b"net/data/9" + data[at + 10 :]).startswith(
        "the entry 'net/data/0' has another name where it stands"
    )


def test_entries_that_share_bytes_are_refused(path: Path):
    """Many entries of the list that all stand at one place: the way of bombs that need no packing."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, part in PARTS.items():
            opened.writestr(zipfile.ZipInfo("net/" + name), part)
        weights = opened.getinfo("net/data/0")
        for number in range(1, 10):
            twin = zipfile.ZipInfo(f"net/data/{number}")
            for attribute in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(twin, attribute, getattr(weights, attribute))
            opened.filelist.append(twin)
    assert "or shares bytes with another (a zip bomb?)" in refusal(path, file.getvalue())


def test_an_archive_of_too_many_entries_is_refused_by_its_word(path: Path):
    data = bytearray(archive())
    struct.pack_into("<2H", data, len(data) - 14, 60_000, 60_000)
    assert refusal(path, bytes(data)).startswith(f"it has 60000 entries, this agent reads {ENTRY_LIMIT}")


@pytest.mark.parametrize("count", [0, 1, 4, 6, 200])
def test_a_list_of_another_length_is_refused(path: Path, count: int):
    data = bytearray(archive())
    struct.pack_into("<2H", data, len(data) - 14, count, count)
    refusal(path, bytes(data))


def test_a_64_bit_end_that_its_locator_does_not_find_is_refused(path: Path):
    saved(path, torch.jit.script(Network()))
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, len(data) - 34, 4)
    assert refusal(path, bytes(data)).startswith("its 64-bit end does not stand where its locator says")


def test_the_64_bit_end_counts_where_there_is_one(path: Path):
    saved(path, torch.jit.script(Network()))
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, len(data) - 66, 1 << 40)
    assert refusal(path, bytes(data)).startswith("it has 1099511627776 entries")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_let_through(path: Path, data: st.DataObject):
    damaged = bytearray(archive())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    assert outcome(path) in (None, FailureReason.INVALID_MODEL)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused(path: Path, data: bytes):
    path.write_bytes(b"PK\x03\x04" + data)
    assert outcome(path) is FailureReason.INVALID_MODEL


def outcome(path: Path) -> FailureReason | None:
    """Return the reason why a file is refused, or None."""
    try:
        check(path)
    except BenchmarkFailedError as error:
        return error.reason
    return None


def test_name_without_end_is_refused(path: Path):
    parts = {**PARTS, "code/" + "x" * 2000: b""}
    assert refusal(path, archive(parts)) == (
        "an entry has a name of 2009 bytes, this agent reads 1024; save the model with torch.jit.save and upload that file"
    )
