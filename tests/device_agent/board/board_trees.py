"""Boards as file trees: the real layout of their /proc and /sys, and their vendors' programs."""

from pathlib import Path

CPU = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def program(root: Path, name: str, answers: dict[str, str]) -> None:
    """Install a program that prints an answer for each of the arguments it knows, and fails for others."""
    cases = "".join(f'"{arguments}") cat <<"END"\n{text}\nEND\n;;\n' for arguments, text in answers.items())
    write(root, {f"usr/bin/{name}": f'#!/bin/sh\ncase "$*" in\n{cases}*) exit 255;;\nesac\n'})
    (root / f"usr/bin/{name}").chmod(0o755)


def vcgencmd(root: Path, *, clock_hz: int = 1500398464, throttled: str = "0x0") -> None:
    program(
        root,
        "vcgencmd",
        {"measure_clock arm": f"frequency(48)={clock_hz}", "get_throttled": f"throttled={throttled}"},
    )


def cpufreq(
    root: Path,
    cpu: int,
    *,
    current: int,
    maximum: int,
    governor: str = "ondemand",
    driver: str = "cpufreq-dt",
) -> None:
    write(
        root,
        {
            f"{CPU}/cpu{cpu}/cpufreq/scaling_cur_freq": f"{current}\n",
            f"{CPU}/cpu{cpu}/cpufreq/scaling_max_freq": f"{maximum}\n",
            f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq": f"{maximum}\n",
            f"{CPU}/cpu{cpu}/cpufreq/scaling_governor": f"{governor}\n",
            f"{CPU}/cpu{cpu}/cpufreq/scaling_driver": f"{driver}\n",
            f"{CPU}/cpu{cpu}/cpufreq/scaling_available_governors": (
                "conservative ondemand userspace powersave performance schedutil \n"
            ),
        },
    )


def cooling_device(root: Path, number: int, kind: str, state: int) -> None:
    folder = f"{THERMAL}/cooling_device{number}"
    write(root, {f"{folder}/type": f"{kind}\n", f"{folder}/cur_state": f"{state}\n"})


def raspberry_pi(root: Path) -> Path:
    """A Raspberry Pi 4: sysfs says 1800 MHz, the firmware runs it at 1500."""
    vcgencmd(root)
    for cpu in range(4):
        cpufreq(root, cpu, current=1_800_000, maximum=1_800_000)
    cooling_device(root, 0, "cpufreq-cpu0", 0)
    return write(
        root,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n",
            f"{CPU}/online": "0-3\n",
            f"{THERMAL}/thermal_zone0/type": "cpu-thermal\n",
            f"{THERMAL}/thermal_zone0/temp": "48312\n",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
            "sys/devices/system/clocksource/clocksource0/available_clocksource": "arch_sys_counter \n",
        },
    )


def jetson_orin(root: Path, *, events: int = 0) -> Path:
    """A Jetson Orin Nano with JetPack 6, in its 15 W mode."""
    program(root, "nvpmodel", {"-q": "NV Fan Mode:quiet\nNV Power Mode: MODE_15W\n0"})
    program(root, "jetson_clocks", {})
    for cpu in range(6):
        cpufreq(root, cpu, current=1_510_400, maximum=1_510_400, governor="schedutil")
    for number, kind in enumerate(
        (
            "cpufreq-cpu0",
            "devfreq-17000000.gpu",
            "pwm-fan",
            "cpu-throttle-alert",
            "soc0-throttle-alert",
            "hot-surface-alert",
        )
    ):
        cooling_device(root, number, kind, 2 if kind == "pwm-fan" else 0)
    return write(
        root,
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            f"{CPU}/online": "0-5\n",
            "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
            **{f"sys/class/hwmon/hwmon3/oc{n}_event_cnt": "0\n" for n in (1, 2)},
            "sys/class/hwmon/hwmon3/oc3_event_cnt": f"{events}\n",
            **{f"sys/class/hwmon/hwmon3/oc{n}_throt_en": "1\n" for n in (1, 2, 3)},
            f"{THERMAL}/thermal_zone0/type": "cpu-thermal\n",
            f"{THERMAL}/thermal_zone0/temp": "51000\n",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
        },
    )


def x86_laptop(root: Path, *, core_events: int = 0, package_events: int = 0) -> Path:
    """An Intel laptop of two cores."""
    for cpu in range(2):
        cpufreq(root, cpu, current=2_400_000, maximum=4_200_000, governor="powersave")
        throttle = f"{CPU}/cpu{cpu}/thermal_throttle"
        write(
            root,
            {
                f"{CPU}/cpu{cpu}/cpufreq/scaling_available_governors": "performance powersave\n",
                f"{throttle}/core_throttle_count": f"{core_events if cpu == 1 else 0}\n",
                f"{throttle}/core_throttle_total_time_ms": "77\n",
                f"{throttle}/package_throttle_count": f"{package_events}\n",
            },
        )
        cooling_device(root, cpu, "Processor", 0)
    cooling_device(root, 2, "intel_powerclamp", -1)
    cooling_device(root, 3, "TCC Offset", 3)
    return write(
        root,
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel\nflags\t\t: fpu tsc aperfmperf\n",
            f"{CPU}/online": "0-1\n",
            "sys/class/dmi/id/sys_vendor": "LENOVO\n",
            "sys/class/dmi/id/product_name": "20XW\n",
            f"{THERMAL}/thermal_zone0/type": "x86_pkg_temp\n",
            f"{THERMAL}/thermal_zone0/temp": "45000\n",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
            "sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm \n",
        },
    )


def virtual_machine(root: Path) -> Path:
    """An x86 guest without cpufreq, thermal zones or counters of its clock."""
    cores = "".join(
        f"processor\t: {cpu}\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2596.118\n"
        "flags\t\t: fpu tsc constant_tsc hypervisor\n\n"
        for cpu in range(2)
    )
    return write(
        root,
        {
            "proc/cpuinfo": cores,
            f"{CPU}/online": "0-1\n",
            "sys/class/dmi/id/sys_vendor": "QEMU\n",
            "sys/class/dmi/id/product_name": "Standard PC (Q35 + ICH9, 2009)\n",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "kvm-clock\n",
        },
    )
