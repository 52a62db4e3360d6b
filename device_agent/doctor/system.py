"""What a measurement shares the board with: processors, memory, other processes."""

import re
from pathlib import Path

from device_agent.board.conditions import available_memory_bytes
from device_agent.board.files import find_number, find_text, read_text
from device_agent.board.limits import allowed_cpus, cpu_quota, online_cpus
from device_agent.board.load import WindowLoad
from device_agent.doctor.check import Check, failed, passed, warned
from device_agent.measuring.flags import OTHER_CPU_PERCENT, PRESSURE_PERCENT, STEAL_PERCENT

MIB = 1 << 20
# A worker with its runtime takes about 100 MiB before it has a model.
LITTLE_MEMORY_BYTES = 512 * MIB
NO_MEMORY_BYTES = 128 * MIB


def check_processors(root: Path) -> Check:
    """Tell whether this process may use all cores all the time."""
    online = online_cpus(root)
    allowed = allowed_cpus(root) or online
    quota = cpu_quota(root)
    if quota is not None:
        return warned(
            "processors",
            f"a cgroup allows {quota:g} cores' time and stops the threads that use more, which reads as "
            "latency",
            "run the agent without a CPU limit: no --cpus for docker, no CPUQuota= for systemd",
        )
    if online and len(allowed) < len(online):
        return warned(
            "processors",
            f"{len(allowed)} of {len(online)} cores may be used",
            "run the agent without taskset, --cpuset-cpus or CPUAffinity=, or ask for as many threads",
        )
    return passed("processors", f"all {len(online)} cores may be used" if online else "nothing limits them")


def check_virtual_machine(root: Path) -> Check:
    """Tell whether the board is shared with other machines."""
    name = _hypervisor(root)
    if name is None:
        return passed("machine", "no sign of a hypervisor")
    return warned(
        "machine",
        f"a virtual machine ({name}): others share its cores, and steal time tells only part of it",
        "compare only figures whose canary agrees; quote figures from the board itself",
    )


def _hypervisor(root: Path) -> str | None:
    cpuinfo = read_text(root / "proc/cpuinfo") or ""
    product = " ".join(
        text
        for file in ("sys_vendor", "product_name")
        if (text := read_text(root / "sys/class/dmi/id" / file)) is not None
    )
    if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE):
        return product or "its processor says so"
    # Arm processors have no such flag.
    if re.search(r"QEMU|KVM|VMware|Virtual Machine|VirtualBox|Apple Virtualization", product):
        return product
    if "linux,dummy-virt" in (read_text(root / "proc/device-tree/compatible") or ""):
        return "linux,dummy-virt"
    return read_text(root / "sys/hypervisor/type")


def check_memory(root: Path) -> Check:
    """Tell whether a worker and a model fit."""
    available = available_memory_bytes(root)
    if available is None:
        return warned("memory", "/proc/meminfo does not tell what is available", "mount /proc")
    finding = f"{available / MIB:,.0f} MiB available"
    remedy = "stop what takes it: `ps aux --sort=-rss | head`"
    if available < NO_MEMORY_BYTES:
        return failed("memory", f"{finding}, less than a runtime takes without a model", remedy)
    if available < LITTLE_MEMORY_BYTES:
        return warned("memory", f"{finding}: larger models will swap or be killed", remedy)
    return passed("memory", finding)


def check_swap(root: Path) -> Check:
    """Tell whether memory was swapped out, whose return would interrupt a measurement."""
    text = read_text(root / "proc/meminfo")
    total_kib = find_number(r"^SwapTotal:\s*(\d+) kB", text)
    free_kib = find_number(r"^SwapFree:\s*(\d+) kB", text)
    if not total_kib or free_kib is None:
        return passed("swap", "there is none")
    used_mib = (total_kib - free_kib) / 1024
    if used_mib < 1:
        return passed("swap", f"{total_kib / 1024:,.0f} MiB, unused")
    return warned(
        "swap",
        f"{used_mib:,.0f} of {total_kib / 1024:,.0f} MiB in use; pages that return interrupt a measurement",
        "sudo swapoff -a, and `sudo swapon -a` afterwards if memory is scarce",
    )


def check_pressure(root: Path) -> Check:
    """Tell whether the kernel notes how long tasks wait."""
    if find_text(r"^some avg10=(\S+)", read_text(root / "proc/pressure/cpu")) is not None:
        return passed("pressure", "the kernel tells how long tasks wait (PSI)")
    return warned(
        "pressure",
        "the kernel does not tell how long tasks wait (PSI), so some disturbances go unseen",
        "add psi=1 to the kernel's command line and restart; on a Raspberry Pi in /boot/firmware/cmdline.txt",
    )


def check_load(load: WindowLoad) -> tuple[Check, ...]:
    """Judge what other processes and other machines used while nothing was measured, as jobs will judge it."""
    checks = []
    if load.other_cpu_percent is not None:
        finding = f"{load.other_cpu_percent:.1f} % of a core over {load.window_s:.1f} s"
        checks.append(
            passed("other processes", finding)
            if load.other_cpu_percent <= OTHER_CPU_PERCENT
            else warned(
                "other processes",
                f"{finding}; jobs wait for less than {OTHER_CPU_PERCENT:g} %",
                "stop what runs: `top` shows it",
            )
        )
    if load.steal_percent is not None and load.steal_percent > STEAL_PERCENT:
        checks.append(
            warned(
                "steal",
                f"the hypervisor gave {load.steal_percent:.1f} % of all cores to others",
                "use a machine with cores of its own",
            )
        )
    if load.cpu_pressure_percent is not None and load.cpu_pressure_percent > PRESSURE_PERCENT:
        finding = f"some task waited for a processor in {load.cpu_pressure_percent:.1f} % of the time"
        checks.append(warned("waiting", finding, "stop what runs: `top` shows it"))
    if load.memory_pressure_percent is not None and load.memory_pressure_percent > PRESSURE_PERCENT:
        finding = f"some task waited for memory in {load.memory_pressure_percent:.1f} % of the time"
        checks.append(
            warned("waiting for memory", finding, "stop what takes it: `ps aux --sort=-rss | head`")
        )
    return tuple(checks)
