"""All checks of the board, in the order of the table."""

from datetime import datetime
from pathlib import Path

from device_agent.board.load import WindowLoad
from device_agent.doctor import access, acquaintances, speed, system, timing
from device_agent.doctor.check import Check


def examine_board(
    root: Path, *, state_dir: Path, load: WindowLoad, timer: timing.Timer, now: datetime
) -> tuple[Check, ...]:
    """Return the checks that need nothing but files, a window of load, and a look at the timer."""
    return (
        speed.check_governor(root),
        *speed.check_power_mode(root),
        speed.check_temperature(root),
        speed.check_throttling(root),
        *timing.check_clock_source(root),
        timing.check_timer(timer),
        system.check_processors(root),
        system.check_virtual_machine(root),
        system.check_memory(root),
        system.check_swap(root),
        system.check_pressure(root),
        *system.check_load(load),
        access.check_state_dir(state_dir),
        access.check_disk(state_dir),
        *access.check_energy_counters(root),
        acquaintances.check_certificate(state_dir, now),
        acquaintances.check_clients(state_dir, now),
        access.check_perf(root),
        access.check_memory_marks(root),
        access.check_sacrifice(root),
    )
