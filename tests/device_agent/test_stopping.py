"""Signals reach the agent whichever thread the kernel hands them to."""

import signal
import subprocess
import sys

import pytest

LIMIT_S = 10.0
# Whoever lets signals through again takes those that came meanwhile; starting a thread does it, hence gRPC does.
CHILD = """
import os, signal, threading
from device_agent.cli.stopping import stop_requests

wait = stop_requests(exit_on_stdin_eof=True)

def churn():
    signals = range(1, 30)
    while True:
        for how in 50 * (signal.SIG_BLOCK, signal.SIG_UNBLOCK):
            signal.pthread_sigmask(how, signals)

for _ in range(2):
    threading.Thread(target=churn, daemon=True).start()
print("listening", flush=True)
print(wait(), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_heard_while_other_threads_change_their_masks(number: signal.Signals):
    # Where the handler alone tells, every other child sleeps on.
    for _ in range(8):
        assert _ended_by(lambda child: child.send_signal(number)) == number.name


def test_end_of_standard_input_is_heard():
    assert _ended_by(lambda child: child.stdin.close()) == "end of standard input"


def _ended_by(end) -> str:
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "listening\n"
            end(child)
            assert child.wait(LIMIT_S) == 0
            return child.stdout.readline().strip()
        finally:
            child.kill()
