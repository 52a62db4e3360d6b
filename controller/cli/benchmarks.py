"""`edgenas benchmarks`."""

from dataclasses import asdict
from typing import Annotated

import typer

from controller.cli.options import JsonOption
from controller.cli.tables import (
    MEASUREMENT_HEADERS,
    measurement_json,
    measurement_row,
    print_json,
    print_table,
)
from controller.config import home
from controller.devices.connect import connected

app = typer.Typer(help="What a device has measured before, asked of the device itself.", no_args_is_help=True)

DeviceOption = Annotated[str, typer.Option("--device", help="A registered device, or 'local'.")]
_PATIENCE_S = 10.0


@app.command("list")
def list_benchmarks(
    device: DeviceOption,
    model: Annotated[str, typer.Option(help="Only the model with this sha256.")] = "",
    runtime: Annotated[str, typer.Option(help="Only this runtime.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    json: JsonOption = False,
) -> None:
    """List a device's past benchmarks, newest first."""
    with connected(device, home(), _PATIENCE_S) as client:
        found = client.benchmarks(model_sha256=model, runtime=runtime, limit=limit)
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
    """Show one past benchmark: every figure, the conditions around it, and with --json the raw samples."""
    with connected(device, home(), _PATIENCE_S) as client:
        found = client.benchmark(benchmark)
    if json:
        print_json({**measurement_json(device, found), **asdict(found), "mode": found.mode.value})
        return
    details = asdict(found)
    details |= {"mode": found.mode.value, "samples_ms": f"{len(found.samples_ms)} raw samples (--json)"}
    details |= {"warmup_ms": f"{len(found.warmup_ms)} raw samples (--json)"}
    rows: list[tuple[str, str]] = []
    for name, value in details.items():
        nested = value.items() if isinstance(value, dict) else [("", value)]
        rows += [(f"{name} {key}".strip(), str(item)) for key, item in nested]
    print_table(("figure", "value"), rows)
