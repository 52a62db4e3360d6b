"""`edgenas-agent pair`."""

import errno
import logging
from pathlib import Path

import click

from device_agent.access.roles import Role, role_of
from device_agent.cli.options import Refusal, state_dir_option
from device_agent.errors import AgentError, StartupError

LAST_PORT = 65535


@click.command()
@click.option(
    "--role",
    type=click.Choice([role.label for role in Role]),
    default=Role.MEASURE.label,
    show_default=True,
    help="What the host may do: read what was measured; measure as well; look after all hosts as well.",
)
@click.option(
    "--address",
    show_default="the agent's host, and the port after its own",
    help="HOST:PORT to be paired at; port 0 takes a free one.",
)
@state_dir_option
def pair(role: str, address: str | None, state_dir: Path) -> None:
    """Show a code that lets one host in, and wait for it: ten minutes, five tries."""
    # gRPC and cryptography are slow to import, and the other commands do without them.
    from device_agent.access.clients import ClientStore
    from device_agent.access.identity import IdentityFolder
    from device_agent.access.pairing import CODE_DIGITS, PairingCode, new_code
    from device_agent.serving.admission.pairing import PairingService, pairing_open
    from device_agent.serving.listening import parse_address, read_address

    logging.getLogger().setLevel(logging.WARNING)
    state_dir = state_dir.expanduser().absolute()
    try:
        agent_address = read_address(state_dir)
        if agent_address is None:
            raise StartupError(
                f"no agent has run with the state directory '{state_dir}'; start it first, or give its --state-dir"
            )
        agent_host, agent_port = parse_address(agent_address)
        if address is None and agent_port == LAST_PORT:
            raise StartupError(
                f"the agent has the last port, {LAST_PORT}, and there is none after it; give an --address"
            )
        host, port = (agent_host, agent_port + 1) if address is None else parse_address(address)
        identity = IdentityFolder(state_dir).current()
        digits = new_code()
        code = PairingCode(digits)
        service = PairingService(
            code=code, role=role_of(role), identity=identity, clients=ClientStore(state_dir)
        )
        with pairing_open(host, port, service, identity) as bound_port:
            half = CODE_DIGITS // 2
            click.echo(f"code: {digits[:half]}-{digits[half:]}")
            more = "" if bound_port == agent_port + 1 else f" --pairing-port {bound_port}"
            click.echo(
                f"type it at the host within ten minutes: edgenas devices add THIS_BOARD:{agent_port}{more}"
            )
            try:
                service.wait()
            finally:
                # What is under way when the port closes must not pair any more.
                code.end()
        client = service.outcome()
    except AgentError as error:
        taken = address is None and getattr(error.__cause__, "errno", None) == errno.EADDRINUSE
        hint = ", or end the `edgenas-agent pair` that may show a code already" if taken else ""
        raise Refusal(f"{error}{hint}") from error
    except KeyboardInterrupt:
        raise Refusal("interrupted; the code is no longer good") from None
    click.echo(
        f"paired with {client.name}, role {client.role.label}, certificate {client.certificate.fingerprint[:16]}"
    )
