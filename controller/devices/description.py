"""What a board says of itself."""

from dataclasses import dataclass
from pathlib import Path

MODELLED = "modelled"
"""The power source that is a formula."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeDescription:
    """Something on the board that runs models; `library` is empty where an older agent does not tell it."""

    name: str
    version: str
    providers: tuple[str, ...]
    library: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnavailableRuntime:
    """A runtime that the agent knows and cannot use; the reason says what to do about it."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSource:
    """Somewhere that the board's power might be read.

    Attributes:
        name: What to ask for, e.g. `ina226`.
        scope: What it covers: `soc`, `board` or `input`.
        absent_reason: Why it cannot be read and what to do; empty where it can.
    """

    name: str
    scope: str
    absent_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLayer:
    """One way in which models are confined on the board; `absent_reason` is empty where it is in effect."""

    name: str
    absent_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDescription:
    """What a board is made of; None where it cannot tell.

    Attributes:
        boot_id: Identifies this boot of the board's kernel.
        power_sources: Best first; an older agent names none, and measures no energy.
        sandbox: Empty where an older agent does not tell.
    """

    protocol_version: int
    oldest_protocol_version: int
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
    unavailable_runtimes: tuple[UnavailableRuntime, ...] = ()
    power_sources: tuple[PowerSource, ...] = ()
    sandbox: tuple[SandboxLayer, ...] = ()

    @property
    def shares_processor(self) -> bool:
        """Whether the board is the machine that this process runs on."""
        return self.boot_id is not None and self.boot_id == _own_boot_id()

    @property
    def energy_absent_reason(self) -> str:
        """Why nothing here measures what a processor's inference takes; empty where something does.

        A model of the energy is no measurement, and a graphics card's own sensor sees no processor.
        """
        sensors = [s for s in self.power_sources if s.name != MODELLED and s.scope != "gpu"]
        if any(not sensor.absent_reason for sensor in sensors):
            return ""
        if not self.power_sources:
            return f"its agent {self.agent_version} names no power source"
        if not sensors:
            return "what it has is a model or sees a graphics card alone"
        best, *others = sensors
        more = f"; nor can {', '.join(sensor.name for sensor in others)} be read" if others else ""
        return f"{best.name}: {best.absent_reason}{more} (`edgenas devices show` tells why)"


def _own_boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
