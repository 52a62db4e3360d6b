"""Whether a model can be kept from what it has no use for."""

from collections.abc import Mapping
from pathlib import Path

from device_agent.board.files import read_integer
from device_agent.doctor.check import Check, passed, warned
from device_agent.runtimes.confinement import in_words

# What keeps user namespaces from a process, by the value that does so.
SWITCHES = {"user/max_user_namespaces": 0, "kernel/unprivileged_userns_clone": 0}
APPARMOR_SWITCH = "kernel/apparmor_restrict_unprivileged_userns"
CONTAINER_MARKS = (".dockerenv", "run/.containerenv")


def check_sandbox(root: Path, missing: Mapping[str, str]) -> Check:
    """Tell which layers of the sandbox are missing; models then reach further than they should."""
    if not missing:
        return passed("sandbox", "models are kept from the network, the agent's files and other processes")
    return warned("sandbox", f"models run without {in_words(missing)}", _remedy(root))


def _remedy(root: Path) -> str:
    if any((root / mark).exists() for mark in CONTAINER_MARKS):
        return (
            "run the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined: the engine's own "
            "profiles forbid the namespaces in which a worker confines itself; or the agent outside a container"
        )
    sysctls = root / "proc/sys"
    closed = [
        name.replace("/", ".") for name, value in SWITCHES.items() if read_integer(sysctls / name) == value
    ]
    if closed:
        opened = "15000" if closed[0].startswith("user.") else "1"
        return f"sudo sysctl {closed[0]}={opened}"
    if read_integer(sysctls / APPARMOR_SWITCH) == 1:
        return (
            "give the worker's Python an AppArmor profile with `userns,` (Ubuntu 24.04 wants one), or "
            f"sudo sysctl {APPARMOR_SWITCH.replace('/', '.')}=0"
        )
    return (
        "remove what the reason names, or run a kernel with CONFIG_USER_NS, CONFIG_NET_NS and CONFIG_SECCOMP_FILTER; "
        "until then measure only models that you trust"
    )
