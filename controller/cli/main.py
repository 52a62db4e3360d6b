"""The command's entry: what stands on every noun, and how errors reach the user.

Exit codes: 0 done, 1 a fault of EdgeNAS, 2 a mistake of the user or of the machine's state, 3 a search that
stopped and can be resumed, 130 interrupted.
"""

import importlib.metadata
import logging
import sys
from typing import Annotated, Any, cast

import typer

from controller.cli import bench, benchmarks, compare, devices, front, generate, interruption, runs, search
from controller.core.errors import EdgeNASError, SearchStoppedError
from controller.core.text import printable

_NAME = "edgenas"
# Click's, or that of the copy of click that newer versions of typer bring along, which has no public name.
_UsageError = cast(type[Exception], typer.BadParameter.__bases__[0])

app = typer.Typer(
    name=_NAME,
    help="Finds neural networks for the board you have, measured on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("search")(search.search)
app.command("front")(front.front)
app.command("generate")(generate.generate)
app.command("bench")(bench.bench)
app.command("compare")(compare.compare)
app.add_typer(runs.app, name="runs")
app.add_typer(devices.app, name="devices")
app.add_typer(benchmarks.app, name="benchmarks")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{_NAME}, version {importlib.metadata.version(_NAME)}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more about what happens.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )


def main() -> None:
    """Run the command and turn errors into one line and an exit code."""
    interruption.listen()
    try:
        code = app(prog_name=_NAME, standalone_mode=False)
    except SearchStoppedError as error:
        _fail(str(error), 3)
    except EdgeNASError as error:
        _fail(str(error), 2)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # not in every version, so there is nothing to import
            raise SystemExit(2) from None  # typer has printed the help
        _fail(_misuse(error), 2)
    else:
        raise SystemExit(code)


def _misuse(error: Any) -> str:
    """Return what is wrong with a command line, and where to read what it may be."""
    what = " ".join(error.format_message().split()).removesuffix(".")
    command = error.ctx.command_path if error.ctx else _NAME
    return f"{what}{'' if what.endswith('?') else ';'} see `{command} --help`"


def _fail(message: str, code: int) -> None:
    print(f"{_NAME}: {printable(' '.join(message.split()))}", file=sys.stderr)
    raise SystemExit(code)
