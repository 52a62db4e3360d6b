"""What a board says of itself."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeDescription:
    """Something on the board that runs models."""

    name: str
    version: str
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDescription:
    """What a board is made of; None where it cannot tell.

    Attributes:
        boot_id: Identifies this boot of the board's kernel.
    """

    protocol_version: int
    agent_version: str
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
    runtimes: tuple[RuntimeDescription, ...]
    boot_id: str | None
    model_size_limit_bytes: int

    @property
    def shares_processor(self) -> bool:
        """Whether the board is the machine that this process runs on."""
        return self.boot_id is not None and self.boot_id == _own_boot_id()


def _own_boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
