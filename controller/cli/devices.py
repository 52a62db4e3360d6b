"""`edgenas devices`."""

import ipaddress
import logging
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
from controller.core.errors import ConfigurationError, DeviceUnreachableError, EdgeNASError
from controller.devices.connect import connected, registry
from controller.devices.description import DeviceDescription
from controller.devices.registry import LOCAL, RegisteredDevice
from controller.devices.wheelhouse import INSTALLER, PYTHONS, make_wheelhouse

logger = logging.getLogger(__name__)

app = typer.Typer(help="The boards that can be measured on.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="A registered device, or 'local'.")]
_PATIENCE_S = 5.0


@app.command()
def add(
    address: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="Where the board's agent listens.")],
    name: Annotated[str | None, typer.Option(help="What to call it; the host name otherwise.")] = None,
    code: Annotated[
        str | None,
        typer.Option(
            help="What `edgenas-agent pair` shows on the board; other users of this machine see it here.",
            show_default="asked for",
        ),
    ] = None,
    pairing_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Where the board waits to be paired.", show_default="the port after PORT"
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Without TLS and pairing; an agent on this machine's loopback alone."
        ),
    ] = False,
) -> None:
    """Pair with a board: asks for the code that `edgenas-agent pair` shows there."""
    from controller.devices.address import parse_address

    full_address = parse_address(address)
    host, _, port = full_address.rpartition(":")
    chosen = name or _name_of(host.strip("[]"))
    boards = registry(home())
    boards.check_free(chosen)
    if insecure:
        from controller.devices.client import DeviceClient

        try:
            with DeviceClient(chosen, full_address, _PATIENCE_S) as client:
                found = client.describe()
        except DeviceUnreachableError as error:
            raise DeviceUnreachableError(
                f"{error}; an agent that has TLS is paired with: leave --insecure out"
            ) from error
        boards.add(chosen, full_address)
        say(f"added {chosen} at {full_address}, without TLS: {_summary(found)}")
        return
    from controller.devices.pairing import PairingPort

    pairing = PairingPort(parse_address(f"{host}:{pairing_port or int(port) + 1}"))
    credentials, role = pairing.pair(code or _asked_code())
    boards.add(chosen, full_address, credentials)
    say(f"paired with {chosen} at {full_address}, role {role}")
    with connected(chosen, home(), _PATIENCE_S) as client:
        say(f"{chosen} answers: {_summary(client.describe())}")


@app.command("list")
def list_devices(json: JsonOption = False) -> None:
    """List the registered boards."""
    known = registry(home()).devices()
    if json:
        print_json([asdict(device) for device in known])
        return
    print_table(
        ("device", "address", "connection"),
        ((device.name, device.address, _connection(device)) for device in known),
    )
    say("'local' is this machine and needs no registration")


@app.command()
def discover(
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="How long to listen.")] = 3.0,
    interface: Annotated[
        str | None, typer.Option(help="Listen on the interface of this address.", show_default="all")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List agents that announce themselves on the local network: a hint, which pairing then checks."""
    from controller.devices.discovery import announcements

    boards = registry(home())
    rows = [
        {**asdict(told), "device": next(boards.known_by(told.fingerprint), None)}
        for told in announcements(seconds, interface)
    ]
    if json:
        print_json(rows)
        return
    print_table(
        ("announced as", "address", "board", "agent", "says it is"),
        (
            (
                row["name"],
                row["address"],
                row["board"],
                row["agent_version"],
                row["device"] or "not added yet",
            )
            for row in rows
        ),
    )
    say("anybody can announce anything; `edgenas devices add ADDRESS` finds out who it is")


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
    """Forget a board, and have it forget this host; the board keeps its history."""
    if device == LOCAL:
        raise ConfigurationError(
            f"device {LOCAL!r} is this machine, which needs no registration and cannot be removed"
        )
    known = registry(home()).find(device)
    told = ""
    if known.paired:
        try:
            with connected(device, home(), _PATIENCE_S) as client:
                client.leave()
        except EdgeNASError as error:
            logger.info("%s", error)
            why = "gave no answer" if isinstance(error, DeviceUnreachableError) else "could not be asked"
            told = (
                f"; its agent was not told, as it {why}: where the board still lists this host, "
                "`edgenas-agent clients revoke` there removes it"
            )
    registry(home()).remove(device)
    say(f"removed {device}{told}")


@app.command()
def rotate(device: NameArgument) -> None:
    """Replace this host's key and certificate for a board, as happens by itself before they end."""
    with connected(device, home(), _PATIENCE_S) as client:
        client.renew()
    say(
        f"{device} knows this host by a new certificate, {registry(home()).credentials(device).read().fingerprint[:16]}"
    )


def _asked_code() -> str:
    try:
        return str(typer.prompt("code that the board shows"))
    except typer.Abort:
        # Whoever interrupts, or has no terminal to be asked at.
        raise ConfigurationError(
            "no code was given, and nobody was paired; type what `edgenas-agent pair` shows on the board, or give it with --code"
        ) from None


def _connection(device: RegisteredDevice) -> str:
    if not device.paired:
        return "without TLS"
    try:
        credentials = registry(home()).credentials(device.name).read()
    except EdgeNASError as error:
        return str(error)
    end = min(credentials.expires_at, credentials.agent_expires_at)
    return f"TLS, certificates end {end:%Y-%m-%d}"


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
    rows += [
        (
            "sandbox",
            f"{layer.name}: {f'not to be had: {layer.absent_reason}' if layer.absent_reason else 'yes'}",
        )
        for layer in found.sandbox
    ]
    if not found.power_sources:
        rows.append(("power sources", f"agent {found.agent_version} names none"))
    return rows


def _name_of(host: str) -> str:
    """Return a name for a host: its first label, or all of an address of numbers, whose parts say little alone."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.split(".")[0]
    return re.sub("[:.%]+", "-", host).strip("-")


def _summary(found: DeviceDescription) -> str:
    board = found.board_model or found.cpu_model or found.machine
    runtimes = ", ".join(f"{runtime.name} {runtime.version}" for runtime in found.runtimes)
    return f"{board}, {found.physical_cores} cores, {found.memory_bytes / 1e9:.1f} GB, agent {found.agent_version}, {runtimes}"
