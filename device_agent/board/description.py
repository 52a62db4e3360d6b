"""What the board is made of."""

import platform
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from device_agent.board.files import read_text

# Arm's own cores by part number; x86 kernels print a name, arm64 kernels only this number.
# Source: util-linux, sys-utils/lscpu-arm.c.
ARM_IMPLEMENTER = "0x41"
ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
    "0xd4f": "Neoverse-V2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The board's description; what its system does not tell is None."""

    hostname: str
    board_model: str | None
    cpu_model: str | None
    machine: str
    os_name: str
    kernel_release: str
    python_version: str
    physical_cores: int
    logical_cores: int
    memory_bytes: int
    boot_id: str | None


def describe_board(root: Path = Path("/")) -> Board:
    """Return what this board is, from `proc` and `etc` below `root` and from the operating system."""
    logical_cores = psutil.cpu_count() or 1
    return Board(
        hostname=platform.node(),
        board_model=read_text(root / "proc/device-tree/model"),
        cpu_model=cpu_model(root),
        machine=platform.machine(),
        os_name=os_name(root),
        kernel_release=platform.release(),
        python_version=platform.python_version(),
        # Not every arm64 kernel tells its topology; those boards have no hyper-threading to discount.
        physical_cores=psutil.cpu_count(logical=False) or logical_cores,
        logical_cores=logical_cores,
        memory_bytes=psutil.virtual_memory().total,
        boot_id=read_text(root / "proc/sys/kernel/random/boot_id"),
    )


def cpu_model(root: Path) -> str | None:
    """Return the name of the CPU; different kinds of cores are joined with " + "."""
    text = read_text(root / "proc/cpuinfo") or ""
    names = _values("model name", text)
    if not names:
        cores = zip(_values("CPU implementer", text), _values("CPU part", text), strict=False)
        names = [_core_name(implementer, part) for implementer, part in cores]
    # dict keeps the order of the cores, where a set would not.
    return " + ".join(dict.fromkeys(names)) or None


def _values(field: str, text: str) -> list[str]:
    return re.findall(rf"^{field}\s*:\s*(\S.*?)\s*$", text, re.MULTILINE)


def _core_name(implementer: str, part: str) -> str:
    if implementer == ARM_IMPLEMENTER and part in ARM_PARTS:
        return ARM_PARTS[part]
    return f"implementer {implementer} part {part}"


def os_name(root: Path) -> str:
    """Return the operating system's full name, else its kernel's name."""
    match = re.search(r'^PRETTY_NAME="?(.*?)"?$', read_text(root / "etc/os-release") or "", re.MULTILINE)
    return match.group(1) if match else platform.system()
