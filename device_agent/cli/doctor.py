"""`edgenas-agent doctor`: what stands in the way of good figures on this board."""

import dataclasses
import json
import os
import shutil
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from device_agent.cli.options import (
    Refusal,
    chosen_power,
    found_python,
    power_options,
    root_option,
    state_dir_option,
    worker_python_option,
)
from device_agent.doctor.check import Check, Verdict, failed
from device_agent.errors import AgentError, SensorError
from device_agent.measuring.power import PowerOptions

COLUMN_GAP = "  "
MIN_TEXT_WIDTH = 40


@click.command()
@root_option
@worker_python_option
@state_dir_option
@power_options
@click.option(
    "--watch-s",
    type=click.FloatRange(min=0.01),
    default=2.0,
    show_default=True,
    help="Seconds to watch what else uses the board.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of checks.")
@click.pass_context
def doctor(
    context: click.Context,
    /,
    root: Path,
    worker_python: str,
    state_dir: Path,
    watch_s: float,
    as_json: bool,
    **power: Any,
) -> None:
    """Tell what stands in the way of good figures on this board, and what to do about it.

    Give it the options that the agent is served with.

    Each row says pass, warn (figures will be worse, or some absent) or fail (they will be worthless, or
    none at all). It only looks, and changes nothing. The exit code is 1 where a check fails, otherwise 0.
    """
    root = root.absolute()
    try:
        options = chosen_power(**power)
    except AgentError as error:
        raise Refusal(error) from error
    checks = (
        *_runtimes(worker_python),
        *_sandbox(root, worker_python, state_dir.expanduser().absolute()),
        *_power_sources(root, options),
        *_board(root, state_dir.expanduser().absolute(), watch_s),
    )
    if as_json:
        rows = [dataclasses.asdict(check) | {"verdict": check.verdict.value} for check in checks]
        click.echo(json.dumps(rows, indent=2))
    else:
        width = shutil.get_terminal_size().columns
        click.echo("\n".join((*_table(checks, width), _summary(checks))))
    context.exit(1 if any(check.verdict is Verdict.FAIL for check in checks) else 0)


def _runtimes(worker_python: str) -> tuple[Check, ...]:
    from device_agent.doctor.offers import check_runtimes
    from device_agent.runtimes import catalogue

    try:
        return check_runtimes(*catalogue.survey(found_python(worker_python)))
    except AgentError as error:
        return (failed("runtimes", str(error), "give a --worker-python that has numpy and a runtime"),)


def _sandbox(root: Path, worker_python: str, state_dir: Path) -> tuple[Check, ...]:
    from device_agent.doctor.sandbox import check_sandbox
    from device_agent.runtimes.confinement import Confinement
    from device_agent.runtimes.worker_process import worker_environment

    try:
        python = found_python(worker_python)
        missing = Confinement(hidden=(state_dir,)).missing(python, worker_environment(python))
    except AgentError:
        # No worker: the rows of the runtimes tell why.
        return ()
    return (check_sandbox(root, missing),)


def _power_sources(root: Path, options: PowerOptions) -> tuple[Check, ...]:
    from device_agent.doctor.offers import check_formula, check_power_sources
    from device_agent.sensors import catalogue

    sources = options.sources()
    wanted = "" if options.is_formula else options.source
    try:
        chosen, advice = catalogue.choose(root, wanted, sources=sources), ""
    except SensorError as error:
        chosen, advice = None, str(error)
    sensors = check_power_sources(
        catalogue.survey(root, sources),
        chosen=chosen,
        # Who names one wants no better one.
        passed_over=() if wanted else catalogue.passed_over(root, chosen, sources=sources),
        advice=advice,
    )
    return (*sensors, *check_formula(options.energy_model, is_default=options.is_formula))


def _board(root: Path, state_dir: Path, watch_s: float) -> tuple[Check, ...]:
    from device_agent.board.load import interference, read_load
    from device_agent.doctor.examination import examine_board
    from device_agent.doctor.timing import measure_timer

    before = read_load(root, (os.getpid(),))
    time.sleep(watch_s)
    load = interference(before, read_load(root, (os.getpid(),)))
    return examine_board(
        root, state_dir=state_dir, load=load, timer=measure_timer(), now=datetime.now(timezone.utc)
    )


def _table(checks: Sequence[Check], width: int) -> list[str]:
    subject_width = max(len(check.subject) for check in checks)
    indent = " " * (len("pass") + subject_width + 2 * len(COLUMN_GAP))
    text_width = max(width - len(indent), MIN_TEXT_WIDTH)
    lines = []
    for check in checks:
        # Commands are to be copied: a long word or a hyphen is no place to break a line.
        texts = [check.finding, *([f"→ {check.remedy}"] if check.remedy else [])]
        wrapped = [
            line
            for text in texts
            for line in textwrap.wrap(text, text_width, break_long_words=False, break_on_hyphens=False)
        ]
        head = COLUMN_GAP.join((check.verdict.value, check.subject.ljust(subject_width), ""))
        lines += [
            start + line for start, line in zip([head, *[indent] * len(wrapped)], wrapped, strict=False)
        ]
    return lines


def _summary(checks: Sequence[Check]) -> str:
    counts = Counter(check.verdict for check in checks)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict)
