"""The command line of the board: `edgenas-agent`."""

import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

import click

from device_agent import __version__
from device_agent.errors import AgentError, StartupError

MIB = 1 << 20

state_dir_option = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="EDGENAS_AGENT_HOME",
    default=Path("~/.edgenas-agent"),
    show_default=True,
    help="Folder of models and history; EDGENAS_AGENT_HOME sets it too.",
)


@click.group(context_settings={"max_content_width": 110})
@click.version_option(__version__, prog_name="edgenas-agent")
def main() -> None:
    """Measure neural networks on this board for hosts that search for one."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )


@main.command()
@click.option(
    "--address", default="127.0.0.1:50151", show_default=True, help="HOST:PORT; port 0 takes a free one."
)
@state_dir_option
@click.option(
    "--worker-python",
    default=sys.executable,
    show_default="the agent's own",
    help="Python that runs the models; it needs numpy and onnxruntime, and may be as old as 3.6.",
)
@click.option(
    "--job-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds after which a benchmark is given up.",
)
@click.option(
    "--cache-limit-mb",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="MiB of models to keep; the oldest-used go first.",
)
@click.option(
    "--allow-insecure-network", is_flag=True, help="Serve beyond this machine, to callers nobody checks."
)
@click.option(
    "--exit-on-stdin-eof", is_flag=True, help="Exit when standard input ends, so as not to outlive a host."
)
def serve(
    address: str,
    state_dir: Path,
    worker_python: str,
    job_timeout_s: float,
    cache_limit_mb: int,
    allow_insecure_network: bool,
    exit_on_stdin_eof: bool,
) -> None:
    """Serve this board until a signal comes."""
    # gRPC is slow to import, and `history` and `--help` do without it.
    from device_agent.serving.server import AgentConfig, serving

    try:
        executable = shutil.which(worker_python)
        if executable is None:
            raise StartupError(f"there is no program '{worker_python}' to start; check --worker-python")
        config = AgentConfig(
            address=address,
            state_dir=state_dir.expanduser().absolute(),
            worker_python=executable,
            job_timeout_s=job_timeout_s,
            cache_limit_bytes=cache_limit_mb * MIB,
            allow_insecure_network=allow_insecure_network,
        )
        stop = _stop_requests(exit_on_stdin_eof)
        with serving(config) as bound:
            print(f"listening on {bound}", flush=True)
            logging.getLogger(__name__).info("%s: shutting down", stop.get())
    except AgentError as error:
        _fail(error)


@main.command()
@state_dir_option
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show this many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, named as in the wire format.")
def history(state_dir: Path, limit: int, as_json: bool) -> None:
    """Show finished benchmarks, newest first, whether or not the agent runs."""
    from device_agent.serving.history import HISTORY_FILE, History
    from device_agent.serving.wire import answers

    path = state_dir.expanduser() / HISTORY_FILE
    try:
        if not path.exists():
            raise StartupError(
                f"there is no history in '{path.parent}'; serve from there or give --state-dir"
            )
        with contextlib.closing(History(path)) as opened:
            summaries = opened.page(size=limit).summaries
    except AgentError as error:
        _fail(error)
    if as_json:
        print(json.dumps([answers.record_to_json(summary) for summary in summaries], indent=2))
        return
    rows = [answers.TABLE_COLUMNS, *map(answers.record_to_cells, summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _stop_requests(exit_on_stdin_eof: bool) -> "queue.SimpleQueue[str]":
    """Return a queue that receives the reason as soon as there is one to stop."""
    # SimpleQueue.put is reentrant, as a signal handler needs it.
    reasons: queue.SimpleQueue[str] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: reasons.put(signal.Signals(received).name))
    if exit_on_stdin_eof:

        def watch() -> None:
            while os.read(0, 4096):
                pass
            reasons.put("end of standard input")

        threading.Thread(target=watch, name="stdin", daemon=True).start()
    return reasons


def _fail(error: AgentError) -> NoReturn:
    print(f"edgenas-agent: {error}", file=sys.stderr)
    sys.exit(2)
