"""`edgenas-agent clients` and `edgenas-agent rotate`: who may call, and the certificate that they know."""

import json
from pathlib import Path

import click

from device_agent.access.clients import ClientStore
from device_agent.access.identity import IdentityFolder
from device_agent.cli.options import Refusal, json_option, state_dir_option
from device_agent.cli.tables import print_table
from device_agent.errors import AgentError


@click.group()
def clients() -> None:
    """The hosts that may call this agent."""


@clients.command("list")
@state_dir_option
@json_option
def list_clients(state_dir: Path, as_json: bool) -> None:
    """List them."""
    try:
        known = ClientStore(state_dir.expanduser()).clients()
    except AgentError as error:
        raise Refusal(error) from error
    rows = [
        {
            "name": client.name,
            "role": client.role.label,
            "fingerprint": client.certificate.fingerprint,
            "paired_at": client.paired_at.isoformat(timespec="seconds"),
            "expires_at": client.certificate.expires_at.isoformat(timespec="seconds"),
        }
        for client in known
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(
        ("name", "role", "certificate", "paired (UTC)", "expires (UTC)"),
        [
            (row["name"], row["role"], row["fingerprint"][:16], row["paired_at"][:10], row["expires_at"][:10])
            for row in rows
        ],
    )


@clients.command()
@click.argument("name")
@state_dir_option
def revoke(name: str, state_dir: Path) -> None:
    """Take a host's access away, at once; the agent may go on running."""
    try:
        ClientStore(state_dir.expanduser()).revoke(name)
    except AgentError as error:
        raise Refusal(error) from error
    click.echo(f"revoked {name}")


@click.command()
@click.option(
    "--now",
    is_flag=True,
    help="Do not wait for hosts to learn of it; those that have not must be paired again.",
)
@state_dir_option
def rotate(now: bool, state_dir: Path) -> None:
    """Make a new key and certificate; they take the old ones' place when every paired host knows them.

    A host learns of them when it next looks at the board, as every search and `edgenas devices ping` does.
    """
    state_dir = state_dir.expanduser().absolute()
    folder = IdentityFolder(state_dir)
    try:
        following = folder.prepare_next()
        waiting = [
            client.name
            for client in ClientStore(state_dir).clients()
            if client.told != following.fingerprint and not now
        ]
        if not waiting:
            folder.put_next_in_place()
    except AgentError as error:
        raise Refusal(error) from error
    short = following.fingerprint[:16]
    if waiting:
        click.echo(f"certificate {short} is ready and waits for {', '.join(waiting)} to learn of it")
    else:
        click.echo(f"certificate {short} is in use for every new connection")
