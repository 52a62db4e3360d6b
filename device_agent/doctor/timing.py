"""Whether time itself can be read finely and cheaply."""

import itertools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from device_agent.board.files import read_text
from device_agent.doctor.check import Check, failed, passed, warned

CLOCK_SOURCES = Path("sys/devices/system/clocksource/clocksource0")
# Read without a system call, or within tens of nanoseconds.
FAST = ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", "riscv_clocksource")
COARSE = ("jiffies", "refined-jiffies")

READS = 2000
# A sample of 0.1 ms then carries 1 % of the timer's own.
DEAR_NS = 1_000.0
WORTHLESS_NS = 100_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """What `time.perf_counter_ns` of this Python costs and tells apart, in nanoseconds."""

    cost_ns: float
    resolution_ns: float


def measure_timer() -> Timer:
    """Return the median time between two reads of the timer, and the smallest step that it makes."""
    times = [time.perf_counter_ns() for _ in range(READS)]
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    moved = [step for step in steps if step > 0]
    # A coarse timer stands still for many reads: what one costs is then told by their number.
    cost_ns = statistics.median(moved) if len(moved) > len(steps) / 2 else (times[-1] - times[0]) / len(steps)
    return Timer(cost_ns=cost_ns, resolution_ns=min(moved, default=float("inf")))


def check_clock_source(root: Path) -> tuple[Check, ...]:
    """Return how the kernel reads time; no row where it does not tell."""
    source = read_text(root / CLOCK_SOURCES / "current_clocksource")
    if source is None:
        return ()
    if source in FAST:
        return (passed("clock source", source),)
    if source in COARSE:
        finding = f"{source} moves in steps of milliseconds: nothing can be timed with it"
        return (failed("clock source", finding, _source_remedy(root)),)
    return (
        warned("clock source", f"{source} costs a microsecond or more at each read", _source_remedy(root)),
    )


def _source_remedy(root: Path) -> str:
    available = (read_text(root / CLOCK_SOURCES / "available_clocksource") or "").split()
    better = next((source for source in FAST if source in available), None)
    if better is not None:
        return f"echo {better} | sudo tee /{CLOCK_SOURCES}/current_clocksource"
    return "the kernel offers no better one; `sudo dmesg | grep -i clocksource` tells why it gave others up"


def check_timer(timer: Timer) -> Check:
    """Judge the timer against samples of a fraction of a millisecond."""
    finding = (
        f"perf_counter_ns costs {timer.cost_ns:.0f} ns and tells {timer.resolution_ns:.0f} ns apart here"
    )
    worst_ns = max(timer.cost_ns, timer.resolution_ns)
    if worst_ns < DEAR_NS:
        return passed("timer", finding)
    remedy = "see the clock source; on a virtual machine, measure on the board itself"
    if worst_ns < WORTHLESS_NS:
        return warned("timer", f"{finding}, which blurs networks under 1 ms", remedy)
    return failed("timer", f"{finding}, which nothing can be timed with", remedy)
