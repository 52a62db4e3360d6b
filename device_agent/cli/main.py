"""The entry of `edgenas-agent`: what stands on every command."""

import logging
import sys

import click

from device_agent import __version__
from device_agent.cli.bench import bench
from device_agent.cli.doctor import doctor
from device_agent.cli.history import history
from device_agent.cli.serve import serve


@click.group(context_settings={"max_content_width": 110})
@click.version_option(__version__, prog_name="edgenas-agent")
def main() -> None:
    """Measure neural networks on this board for hosts that search for one."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )


for command in (serve, bench, doctor, history):
    main.add_command(command)
