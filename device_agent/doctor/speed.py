"""Whether the board runs at one speed: governor, power mode, heat, throttling."""

from collections.abc import Sequence
from pathlib import Path

from device_agent.board.clock import CoreGovernor, governors
from device_agent.board.commands import find_tool
from device_agent.board.conditions import power_mode, zone_temperatures_c
from device_agent.board.files import read_text
from device_agent.board.throttling import read_throttling
from device_agent.doctor.check import Check, failed, passed, warned

STEADY = "performance"
GOVERNOR_FILES = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
HOT_C = 70.0


def check_governor(root: Path) -> Check:
    """Only one governor holds the clock still; all others change it within a measurement."""
    cores = governors(root)
    if not cores:
        return warned(
            "governor",
            "there is no cpufreq, so nobody here sets or sees the clock",
            "nothing to do on a virtual machine, whose clock shows in the canary alone; elsewhere, load the "
            "cpufreq driver",
        )
    moving = [core for core in cores if core.governor != STEADY]
    if not moving:
        return passed("governor", f"{STEADY} on all {len(cores)} cores")
    names = ", ".join(dict.fromkeys(core.governor for core in moving))
    finding = f"{names} on {len(moving)} of {len(cores)} cores lets the clock move while a model is timed"
    return warned("governor", finding, _governor_remedy(root, moving))


def _governor_remedy(root: Path, cores: Sequence[CoreGovernor]) -> str:
    if find_tool(root, "jetson_clocks") is not None:
        return "sudo jetson_clocks"
    if any(core.available and STEADY not in core.available for core in cores):
        offered = " ".join(dict.fromkeys(name for core in cores for name in core.available))
        return f"this kernel offers only {offered}: build or load its governor '{STEADY}'"
    return f"echo {STEADY} | sudo tee {GOVERNOR_FILES}"


def check_power_mode(root: Path) -> tuple[Check, ...]:
    """Tell whether a Jetson may use all its power; other boards have no row."""
    if find_tool(root, "nvpmodel") is None:
        return ()
    mode = power_mode(root)
    if mode is None:
        return (warned("power mode", "nvpmodel does not tell it", "look at what `sudo nvpmodel -q` says"),)
    if mode.startswith("MAXN"):
        return (passed("power mode", mode),)
    remedy = "list the modes with `nvpmodel -p --verbose`, then `sudo nvpmodel -m ID` with the one named MAXN"
    return (warned("power mode", f"{mode} caps clocks and cores", remedy),)


def check_temperature(root: Path) -> Check:
    """Tell whether there is a temperature to wait for, and room below the limits."""
    temperatures = zone_temperatures_c(root)
    if not temperatures:
        return warned(
            "temperature",
            "no thermal zone can be read, so no job can wait for a cool board",
            "nothing to do on a virtual machine; elsewhere, load the thermal driver of the board",
        )
    finding = f"{max(temperatures):.1f} °C in the hottest of {len(temperatures)} zones"
    if max(temperatures) >= HOT_C:
        return warned("temperature", f"{finding}, before any work", "let it cool down, or add a fan")
    return passed("temperature", finding)


def check_throttling(root: Path) -> Check:
    """Tell whether something slows the board down, now or since it was started."""
    state = read_throttling(root)
    model = read_text(root / "proc/device-tree/model") or ""
    if state.active:
        remedy = "cool the board, and power it from a supply that is made for it"
        return failed("throttling", f"right now: {', '.join(state.active)}", remedy)
    if state.firmware_bits is None and model.startswith("Raspberry Pi"):
        return warned(
            "throttling",
            "vcgencmd cannot be run, so throttling of this board goes unseen",
            "sudo apt install raspi-utils; sudo usermod -aG video USER, with the agent's user",
        )
    if state.since_boot:
        remedy = "expect it again under load: check supply, cable and fan; a restart clears this memory"
        return warned("throttling", f"since the last start: {', '.join(state.since_boot)}", remedy)
    if not state.is_reported:
        return warned(
            "throttling",
            "this board does not report it",
            "nothing to do on a virtual machine: what slows it down shows in the canary alone",
        )
    return passed("throttling", "nothing slows the board down")
