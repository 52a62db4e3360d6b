"""What the agent can measure with here: runtimes and power sources."""

from collections.abc import Sequence

from device_agent.benchmark import RuntimeDescription, UnavailableRuntime
from device_agent.doctor.check import Check, failed, passed, warned
from device_agent.sensors.base import PowerSource


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
    survey: Sequence[tuple[PowerSource, str | None]], advice: str = ""
) -> tuple[Check, ...]:
    """Return a row for each power source that can be read, or one that says what to do where none can.

    Args:
        survey: Each source with the reason why it cannot be read, None where it can.
        advice: What to do where none can; empty for the reasons of them all.
    """
    readable = [source for source, absent_reason in survey if absent_reason is None]
    if readable:
        return tuple(
            passed(f"power {source.name}", f"covers the {source.scope.value}") for source in readable
        )
    reasons = [f"{source.name}: {reason}" for source, reason in survey]
    return (
        warned(
            "power",
            f"none of {len(survey)} known sources can be read, so energy will be absent",
            advice or "; ".join(reasons) or "install a release of the agent that knows this board's sensor",
        ),
    )
