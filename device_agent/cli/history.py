"""`edgenas-agent history`."""

import contextlib
import json
from pathlib import Path

import click

from device_agent.cli.options import Refusal, json_option, state_dir_option
from device_agent.cli.tables import print_table
from device_agent.errors import AgentError, StartupError


@click.command()
@state_dir_option
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show this many.")
@json_option
def history(state_dir: Path, limit: int, as_json: bool) -> None:
    """Show finished benchmarks, newest first, whether or not the agent runs."""
    from device_agent.serving.storage.history import HISTORY_FILE, History
    from device_agent.serving.wire import answers

    path = state_dir.expanduser() / HISTORY_FILE
    try:
        if not path.exists():
            raise StartupError(
                f"there is no history in '{path.parent}'; serve from there or give --state-dir"
            )
        with contextlib.closing(History(path, answers.labels_in)) as opened:
            summaries = opened.page(size=limit).summaries
    except AgentError as error:
        raise Refusal(error) from error
    if as_json:
        click.echo(json.dumps([answers.record_to_json(summary) for summary in summaries], indent=2))
        return
    print_table(answers.TABLE_COLUMNS, map(answers.record_to_cells, summaries))
