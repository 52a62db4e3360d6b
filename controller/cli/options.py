"""Options that several nouns share."""

from typing import Annotated

import typer

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="EDGENAS_STORE",
        help="File or database URL of the runs.",
        show_default="~/.edgenas/edgenas.db",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the beginning of it, or 'last'.")
]
# Each form has its line; a blank one between two lines keeps them apart.
_PREFERENCES = """Which candidate of the front:

knee: nearest to the best of everything;

vote: what several ways of judging elect together;

accuracy,latency_ms: best in the first, ties broken by the next;

accuracy:0.01,latency_ms or accuracy:1%,latency_ms: fastest of those worse by at most that, in the figure's unit or in % of the best;

accuracy=0.7,latency=0.3: least weighted sum;

'accuracy,latency_ms<=15': most accurate within a bound; each of these takes bounds;

or a candidate's id, or its beginning."""
SelectOption = typer.Option("--select", "--weights", metavar="PREFERENCE", help=_PREFERENCES)
