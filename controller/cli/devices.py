"""`edgenas devices`."""

import ipaddress
import re
import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from controller.cli.options import JsonOption
from controller.cli.tables import ABSENT, print_json, print_table, say
from controller.config import home
from controller.devices.connect import connected, registry
from controller.devices.description import DeviceDescription
from controller.devices.wheelhouse import INSTALLER, PYTHONS, make_wheelhouse

app = typer.Typer(help="The boards that can be measured on.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="A registered device, or 'local'.")]
_PATIENCE_S = 5.0


@app.command()
def add(
    address: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="Where the board's agent listens.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the host name otherwise.")] = None,
) -> None:
    """Register a board whose agent answers."""
    from controller.devices.client import DeviceClient
    from controller.devices.registry import parse_address

    full_address = parse_address(address)
    chosen = name or _name_of(full_address.rpartition(":")[0].strip("[]"))
    with DeviceClient(chosen, full_address, _PATIENCE_S) as client:
        found = client.describe()
    device = registry(home()).add(chosen, full_address)
    say(f"added {device.name} at {device.address}: {_summary(found)}")


@app.command("list")
def list_devices(json: JsonOption = False) -> None:
    """List the registered boards."""
    known = registry(home()).devices()
    if json:
        print_json([asdict(device) for device in known])
        return
    print_table(("device", "address"), ((device.name, device.address) for device in known))
    say("'local' is this machine and needs no registration")


@app.command()
def show(device: NameArgument, json: JsonOption = False) -> None:
    """Show what a board is made of and what it can run."""
    with connected(device, home(), _PATIENCE_S) as client:
        found = client.describe()
    if json:
        print_json(asdict(found))
        return
    print_table(("property", "value"), _properties(found))


@app.command()
def ping(device: NameArgument) -> None:
    """Ask a board whether it is there."""
    with connected(device, home(), _PATIENCE_S) as client:
        client.describe()
        started = time.perf_counter()
        found = client.describe()
        elapsed_ms = 1000 * (time.perf_counter() - started)
    say(f"{device} answers in {elapsed_ms:.1f} ms: {_summary(found)}")


@app.command()
def remove(device: NameArgument) -> None:
    """Forget a board; the board itself keeps its history."""
    registry(home()).remove(device)
    say(f"removed {device}")


@app.command()
def wheelhouse(
    platform: Annotated[str, typer.Option(metavar="aarch64|x86_64", help="The board's machine: `uname -m`.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    python: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERSION",
            help="A Python that the board may have; repeatable.",
            show_default=", ".join(PYTHONS),
        ),
    ] = None,
) -> None:
    """Make a folder from which a board installs the agent without a network."""
    pythons = python or PYTHONS
    made = make_wheelhouse(out, platform=platform, pythons=pythons)
    say(
        f"made {out}: {made.wheels} wheels, {made.size_bytes / 1e6:.0f} MB, for Python {', '.join(pythons)} on {platform}"
    )
    name = shlex.quote(out.resolve().name)
    say("copy it to the board and install:")
    say(f"  scp -r {shlex.quote(str(out))} USER@BOARD: && ssh -t USER@BOARD sudo {name}/{INSTALLER}")


def _properties(found: DeviceDescription) -> list[tuple[str, str]]:
    rows = [
        (name.replace("_", " "), ABSENT if value is None else str(value))
        for name, value in asdict(found).items()
        if not isinstance(value, tuple)
    ]
    for runtime in found.runtimes:
        built = f"{runtime.library} {runtime.version}".strip()
        offers = f": {', '.join(runtime.providers)}" if runtime.providers else ""
        rows.append((f"runtime {runtime.name}", built + offers))
    rows += [
        (f"runtime {absent.name}", f"not usable: {absent.reason}") for absent in found.unavailable_runtimes
    ]
    for source in found.power_sources:
        # A formula covers no part of the board.
        covered = f"covers the {source.scope}" if source.scope else "a formula, no sensor"
        state = f"not readable: {source.absent_reason}" if source.absent_reason else covered
        rows.append((f"power source {source.name}", state))
    if not found.power_sources:
        rows.append(("power sources", f"agent {found.agent_version} names none"))
    return rows


def _name_of(host: str) -> str:
    """Return a name for a host: its first label, or all of an address of numbers, whose parts say little alone."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.split(".")[0]
    return re.sub("[:.]+", "-", host).strip("-")


def _summary(found: DeviceDescription) -> str:
    board = found.board_model or found.cpu_model or found.machine
    runtimes = ", ".join(f"{runtime.name} {runtime.version}" for runtime in found.runtimes)
    return f"{board}, {found.physical_cores} cores, {found.memory_bytes / 1e9:.1f} GB, agent {found.agent_version}, {runtimes}"
