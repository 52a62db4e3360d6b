"""Every power source that the agent knows, best first, and the choice among them.

Best is what covers most and is nobody's guess: a chip in the supply line, then a module's own monitor, then
the counters of the processor or of a graphics card, whichever runs the model, then a battery, which must not
be charged meanwhile.

Whoever installs a third party's source wants it used: it comes first.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from device_agent.board.files import read_text
from device_agent.errors import SensorError
from device_agent.sensors import modelled, rapl
from device_agent.sensors.base import PowerSource, Scope, SensorMissingError
from device_agent.sensors.battery import Battery
from device_agent.sensors.ina2xx_hwmon import Ina2xx
from device_agent.sensors.jetson_ina3221_hwmon import JetsonHwmon
from device_agent.sensors.jetson_ina3221_iio import JetsonIio
from device_agent.sensors.nvml import Nvml
from device_agent.sensors.raspberry_pi_pmic import LinearCalibration, RaspberryPiPmic, older_pi
from device_agent.sensors.third_party import third_party_sources
from device_agent.text import shown

# Of some there may be several on a board, and a name such as `ina2xx:1-0040` picks one.
PICKED: dict[str, Callable[[str], PowerSource]] = {
    "ina2xx": lambda chip: Ina2xx(chip=chip),
    "nvml": lambda index: Nvml(index=index),
}
PROCESSOR_ALONE = frozenset({rapl.PACKAGES.name, rapl.PSYS.name})


def known_sources(calibration: LinearCalibration | None = None) -> tuple[PowerSource, ...]:
    """Return every source, those of third parties first, then best first.

    Args:
        calibration: The user's own line for the rails of a Raspberry Pi 5.
    """
    return (
        *third_party_sources(),
        Ina2xx(),
        JetsonHwmon(),
        JetsonIio(),
        RaspberryPiPmic(line=calibration),
        rapl.PACKAGES,
        rapl.PSYS,
        Nvml(),
        Battery(),
    )


def survey(
    root: Path, sources: Sequence[PowerSource] | None = None
) -> tuple[tuple[PowerSource, str | None], ...]:
    """Return each source with the reason why it cannot be read and what to do, None where it can."""
    sources = known_sources() if sources is None else sources
    return tuple((source, source.absent_reason(root)) for source in sources)


def choose(
    root: Path,
    wanted: str = "",
    *,
    sources: Sequence[PowerSource] | None = None,
    on_gpu: bool = False,
) -> PowerSource:
    """Return the source to measure with.

    Args:
        root: Where the kernel's files are.
        wanted: A source's name; empty for the best.
        sources: Those to choose from, best first; None for all that are known.
        on_gpu: Whether the model runs on a graphics card rather than on the processor.

    Raises:
        SensorError: If it cannot be read, in one line with what was looked at and what to do.
    """
    sources = known_sources() if sources is None else sources
    if wanted:
        source = named(wanted, sources)
        reason = source.absent_reason(root)
        if reason is not None:
            raise SensorError(f"power source {wanted!r} cannot be read: {reason}")
        return source
    candidates = [source for source in sources if _sees_model(source, on_gpu)]
    for source in candidates:
        if source.absent_reason(root) is None:
            return source
    raise SensorError(_nothing_to_read(root, candidates))


def passed_over(
    root: Path, chosen: PowerSource | None, *, sources: Sequence[PowerSource] | None = None
) -> tuple[tuple[PowerSource, str], ...]:
    """Return the sensors that are there, that no reading comes from, and that would tell more than the chosen one.

    That is any that comes before it, and a graphics card's own, which nothing else stands in for.

    Args:
        root: Where the kernel's files are.
        chosen: What is read for a model on the processor; None where nothing can be.
        sources: Those to choose from, best first; None for all that are known.

    Returns:
        Each with what stands in its way and what to do.
    """
    sources = known_sources() if sources is None else sources
    names = [source.name for source in sources]
    better = names.index(chosen.name) if chosen is not None and chosen.name in names else 0
    wanted = (source for rank, source in enumerate(sources) if rank < better or source.scope is Scope.GPU)
    obstacles = ((source, _obstacle(source, root)) for source in wanted)
    return tuple((source, text) for source, text in obstacles if text is not None)


def _sees_model(source: PowerSource, on_gpu: bool) -> bool:
    return source.name not in PROCESSOR_ALONE if on_gpu else source.scope is not Scope.GPU


def named(wanted: str, sources: Sequence[PowerSource]) -> PowerSource:
    """Return the source of a name, whether or not the board has it.

    Raises:
        SensorError: If there is none of this name, or it is the formula's, which is no sensor.
    """
    by_name = {source.name: source for source in sources}
    if wanted in by_name:
        return by_name[wanted]
    kind, _, which = wanted.partition(":")
    if which and kind in by_name and kind in PICKED:
        return PICKED[kind](which)
    if wanted == modelled.NAME:
        raise SensorError(
            f"power source {wanted!r} is a formula, not a sensor; start the agent with the file of its"
            " coefficients, --energy-model FILE"
        )
    raise SensorError(
        f"no power source '{shown(wanted)}'; expected one of {', '.join(by_name)} or {modelled.NAME}"
    )


def _nothing_to_read(root: Path, sources: Sequence[PowerSource]) -> str:
    """Say what stands in the way of the sensors that are there, else what kind of board has none."""
    obstacles = [text for source in sources if (text := _obstacle(source, root)) is not None]
    if obstacles:
        return f"no power source can be read: {'; '.join(obstacles)}"
    older = older_pi(root)
    if older is not None:
        return f"a {older} has no power sensor; add an INA219 or INA226 in its supply line"
    if re.search(r"^flags\s*:.*\bhypervisor\b", read_text(root / "proc/cpuinfo") or "", re.MULTILINE):
        return "a virtual machine sees no power sensor; measure on the board itself"
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        return "this container sees no power sensor; run the agent on the board itself"
    looked_at = ", ".join(source.name for source in sources)
    return f"no power sensor (looked for {looked_at}); add an INA226 in the supply line"


def _obstacle(source: PowerSource, root: Path) -> str | None:
    try:
        source.open(root).close()
    except SensorMissingError:
        return None
    except SensorError as error:
        return str(error)
    # It opens, so it is there; a reading is what fails.
    return source.absent_reason(root)
