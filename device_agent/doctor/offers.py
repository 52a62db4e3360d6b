"""What the agent can measure with here: runtimes and power sources."""

from collections.abc import Sequence

from device_agent.benchmark import RuntimeDescription, UnavailableRuntime
from device_agent.doctor.check import Check, failed, passed, warned
from device_agent.sensors import modelled
from device_agent.sensors.base import PowerSource, Scope
from device_agent.sensors.modelled import EnergyModel


def check_runtimes(
    available: Sequence[RuntimeDescription], unavailable: Sequence[UnavailableRuntime]
) -> tuple[Check, ...]:
    """Return a row for each runtime. A missing one is a fault only where there is no other."""
    verdict = warned if available else failed
    present = (
        passed(
            f"runtime {runtime.name}",
            f"{runtime.library} {runtime.version} on {', '.join(runtime.providers) or 'the CPU'}",
        )
        for runtime in available
    )
    missing = (
        verdict(f"runtime {runtime.name}", "cannot be used here", runtime.reason) for runtime in unavailable
    )
    return (*present, *missing)


def check_power_sources(
    survey: Sequence[tuple[PowerSource, str | None]],
    *,
    chosen: PowerSource | None = None,
    passed_over: Sequence[tuple[PowerSource, str]] = (),
    advice: str = "",
) -> tuple[Check, ...]:
    """Return a row for each power source that can be read and each sensor that should be, or one that says why none can.

    Args:
        survey: Each source with the reason why it cannot be read, None where it can.
        chosen: What is read for a model on the processor; None where nothing can be.
        passed_over: Sensors that are there and would be read if they could, with what stands in their way.
        advice: What to do where none is chosen; empty for the reasons of them all.
    """
    readable = [source for source, absent_reason in survey if absent_reason is None]
    if chosen is not None and chosen not in readable:
        # One of several chips or cards, by its own name.
        readable.append(chosen)
    rows = [
        passed(
            f"power {source.name}",
            f"covers the {source.scope.value}" + (", and is what is read" if source == chosen else ""),
        )
        for source in readable
    ]
    for source, obstacle in passed_over:
        instead = (
            "nothing else tells what the card takes"
            if source.scope is Scope.GPU or chosen is None
            else f"{chosen.name} takes its place"
        )
        rows.append(warned(f"power {source.name}", f"it is there and cannot be read; {instead}", obstacle))
    if chosen is None:
        reasons = [f"{source.name}: {reason}" for source, reason in survey if reason is not None]
        rows.append(
            warned(
                "power",
                f"{_lack(readable, len(survey))}, so no energy can be measured",
                advice
                or "; ".join(reasons)
                or "install a release of the agent that knows this board's sensor",
            )
        )
    return tuple(rows)


def _lack(readable: Sequence[PowerSource], known: int) -> str:
    if not readable:
        return f"none of {known} known sources can be read"
    if all(source.scope is Scope.GPU for source in readable):
        return "only a graphics card can be read, and not what the processor takes"
    return "the source that was named cannot be read"


def check_formula(energy_model: EnergyModel | None, *, is_default: bool) -> tuple[Check, ...]:
    """Return a row for the formula that the user gave; no row where there is none.

    Args:
        energy_model: The formula.
        is_default: Whether it is used where no request names a source.
    """
    if energy_model is None:
        return ()
    when = "unless a request names a sensor" if is_default else "only where a request names it"
    finding = f"no sensor but a formula, {energy_model}; used {when}, and its figures are labelled so"
    return (passed(f"power {modelled.NAME}", finding),)
