"""`edgenas benchmarks`."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from controller.cli.measurements import (
    MEASUREMENT_HEADERS,
    measurement_details,
    measurement_json,
    measurement_row,
)
from controller.cli.options import JsonOption
from controller.cli.tables import print_json, print_table
from controller.config import home
from controller.core.errors import ConfigurationError
from controller.devices.connect import connected

app = typer.Typer(help="What a device has measured before, asked of the device itself.", no_args_is_help=True)

DeviceOption = Annotated[str, typer.Option("--device", help="A registered device, or 'local'.")]
_PATIENCE_S = 10.0


@app.command("list")
def list_benchmarks(
    device: DeviceOption,
    model: Annotated[str, typer.Option(help="Only the model with this sha256.")] = "",
    name: Annotated[str, typer.Option(help="Only models of this name.")] = "",
    runtime: Annotated[str, typer.Option(help="Only this runtime.")] = "",
    after: Annotated[
        str,
        typer.Option(help="Only those started then or later: 2026-05-31 or 2026-05-31T14:00, local time."),
    ] = "",
    before: Annotated[str, typer.Option(help="Only those started before then.")] = "",
    flagged: Annotated[
        bool | None,
        typer.Option("--flagged/--clean", help="Only those that carry flags, or only those that carry none."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    json: JsonOption = False,
) -> None:
    """List a device's past benchmarks, newest first."""
    started_after, started_before = _time("after", after), _time("before", before)
    with connected(device, home(), _PATIENCE_S) as client:
        found = client.benchmarks(
            model_sha256=model,
            model_name=name,
            runtime=runtime,
            started_after=started_after,
            started_before=started_before,
            flagged=flagged,
            limit=limit,
        )
    rows = [measurement_json(device, measurement) for measurement in found]
    if json:
        print_json(rows)
        return
    headers = ("request id", "started", *MEASUREMENT_HEADERS)
    print_table(headers, ([row["request_id"], row["started_at"][:19], *measurement_row(row)] for row in rows))


@app.command()
def show(
    benchmark: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="From `edgenas benchmarks list`.")],
    device: DeviceOption,
    json: JsonOption = False,
) -> None:
    """Show one past benchmark: every figure, why it is flagged, the conditions around it, and with --json the raw samples."""
    with connected(device, home(), _PATIENCE_S) as client:
        found = client.benchmark(benchmark)
    if json:
        print_json({**measurement_json(device, found), **asdict(found), "mode": found.mode.value})
        return
    print_table(("figure", "value"), measurement_details(found))


def _time(option: str, text: str) -> datetime | None:
    """Return the time that a user wrote, in their own time zone unless they name another."""
    try:
        return datetime.fromisoformat(text).astimezone() if text else None
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"--{option} {text!r} is no time; expected one such as 2026-05-31, 2026-05-31T14:00 or 2026-05-31T14:00Z"
        ) from error
