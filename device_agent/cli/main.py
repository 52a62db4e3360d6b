"""The entry of `edgenas-agent`: what stands on every command."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from device_agent import __version__
from device_agent.cli.bench import bench
from device_agent.cli.clients import clients, rotate
from device_agent.cli.doctor import doctor
from device_agent.cli.history import history
from device_agent.cli.options import Refusal
from device_agent.cli.pair import pair
from device_agent.cli.serve import serve
from device_agent.text import printable

NAME = "edgenas-agent"


class OneLineGroup(click.Group):
    """Commands whose misuse is told in one line, as every other mistake is."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Understand what stands before the command's name."""
        with _refusing_misuse():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Understand the rest, and run the command."""
        with _refusing_misuse():
            return super().invoke(ctx)


@contextlib.contextmanager
def _refusing_misuse() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # not in click 8.1, so there is nothing to import
            raise  # it shows the help
        what = printable(" ".join(error.format_message().split())).removesuffix(".")
        command = error.ctx.command_path if error.ctx else NAME
        raise Refusal(f"{what}{'' if what.endswith('?') else ';'} see `{command} --help`") from error


@click.group(cls=OneLineGroup, context_settings={"max_content_width": 110})
@click.version_option(__version__, prog_name=NAME)
def main() -> None:
    """Measure neural networks on this board for hosts that search for one."""
    # Strangers that are sent away would otherwise fill the log, a line each.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )


for command in (serve, pair, clients, rotate, bench, doctor, history):
    main.add_command(command)
