"""`edgenas-agent serve`."""

import logging
from pathlib import Path
from typing import Any

import click

from device_agent.cli.options import Refusal, measuring_config, measuring_options, state_dir_option
from device_agent.cli.readiness import tell_systemd
from device_agent.cli.stopping import stop_requests
from device_agent.errors import AgentError

MIB = 1 << 20


@click.command()
@click.option(
    "--address", default="0.0.0.0:50151", show_default=True, help="HOST:PORT; port 0 takes a free one."
)
@state_dir_option
@measuring_options
@click.option(
    "--cache-limit-mb",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="MiB of models to keep; the oldest-used go first.",
)
@click.option(
    "--history-limit-mb",
    type=click.IntRange(min=0),
    default=1024,
    show_default=True,
    help="MiB of finished benchmarks to keep; the oldest go first, the newest never. 0 keeps all.",
)
@click.option(
    "--insecure", is_flag=True, help="Serve without TLS and to whoever calls; on a loopback address alone."
)
@click.option(
    "--announce/--no-announce",
    default=None,
    show_default="where the address is no loopback",
    help="Tell the local network by multicast DNS that the agent is here.",
)
@click.option(
    "--exit-on-stdin-eof", is_flag=True, help="Exit when standard input ends, so as not to outlive a host."
)
def serve(
    address: str,
    state_dir: Path,
    cache_limit_mb: int,
    history_limit_mb: int,
    insecure: bool,
    announce: bool | None,
    exit_on_stdin_eof: bool,
    **measuring: Any,
) -> None:
    """Serve this board, until a signal comes, to those that `edgenas-agent pair` has let in."""
    # gRPC is slow to import, and the other commands do without it.
    from device_agent.serving.server import AgentConfig, serving

    folder = state_dir.expanduser().absolute()
    try:
        config = AgentConfig(
            address=address,
            state_dir=folder,
            measuring=measuring_config(state_dir=folder, **measuring),
            cache_limit_bytes=cache_limit_mb * MIB,
            history_limit_bytes=history_limit_mb * MIB or None,
            insecure=insecure,
            announce=announce,
        )
        stop = stop_requests(exit_on_stdin_eof=exit_on_stdin_eof)
        with serving(config) as bound:
            click.echo(f"listening on {bound}")
            tell_systemd("READY=1")
            logging.getLogger(__name__).info("%s: shutting down", stop())
    except AgentError as error:
        raise Refusal(error) from error
