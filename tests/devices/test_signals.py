"""Signals reach the host soon, whichever thread the kernel hands them to, and whatever the host waits for."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from edgenas.v1 import measurement_pb2
from fake_agent import FakeAgent, figures_of, serving

from controller.core.errors import DeviceError, DeviceUnreachableError
from controller.devices import client as module
from controller.devices.client import DeviceClient

LIMIT_S = 20.0
# The main thread blocks signals for a moment wherever it starts a thread. One that comes then goes to another
# thread, and wakes that one alone.
CHILD = """
import os, signal, sys, threading
from concurrent.futures import Future
from controller.cli import interruption
from controller.core.measurement import ExportedModel, MeasurementMode, ModelFormat
from controller.core.waiting import wait_for_any
from controller.devices import client as module

# A shell that runs the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
module._FIRST_WAIT_S = module._LONGEST_WAIT_S = 60.0
model = ExportedModel(data=b"model", format=ModelFormat.ONNX, sha256="ab" * 32, precision="float32")
wait, address, number = sys.argv[1:]
device = module.DeviceClient("bench", address)
interruption.listen()
threading.Timer(1.0, os.kill, (os.getpid(), int(number))).start()
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
try:
    exec(wait)
except KeyboardInterrupt:
    print("heard", flush=True)
os._exit(0)
"""
MEASURE = "device.measure(model, request_id='one', model_name='net', mode=MeasurementMode.FULL)"


@pytest.fixture
def silent() -> Iterator[str]:
    """Yield an address where somebody listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def away() -> str:
    """Return an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def busy() -> Iterator[str]:
    """Yield the address of an agent that measures until the test ends."""
    ended = threading.Event()

    def figures(_: object) -> measurement_pb2.Measurement:
        ended.wait()
        return figures_of(1.0)

    with serving(FakeAgent(figures=figures)) as address:
        yield address
        ended.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_search_hears_a_signal_while_it_waits_for_boards(number: signal.Signals, away: str) -> None:
    assert heard("wait_for_any([Future()])", away, number)


def test_host_hears_a_signal_while_a_device_is_away(away: str) -> None:
    assert heard("device.describe()", away)


def test_host_hears_a_signal_while_a_device_says_nothing(silent: str) -> None:
    assert heard("device.describe()", silent)


def test_host_hears_a_signal_while_a_device_measures(busy: str) -> None:
    assert heard(MEASURE, busy)


def heard(wait: str, address: str, number: signal.Signals = signal.SIGTERM) -> bool:
    """Return whether a child that waits in some way hears a signal that another of its threads takes."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, wait, address, str(int(number))],
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
    )
    return done.stdout == "heard\n"


def test_closing_a_client_ends_the_patience_of_other_threads(
    away: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 60.0)
    client = DeviceClient("bench", away)
    ends: list[str] = []

    def ask() -> None:
        try:
            client.describe()
        except DeviceError as error:
            ends.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not caplog.messages:
        thread.join(0.05)
    client.close()
    thread.join(LIMIT_S)

    assert ends == ["device 'bench' gave no answer before its connection was closed"]


def test_job_of_a_device_that_is_away_is_cancelled_in_one_try(away: str) -> None:
    started_s = time.monotonic()

    with DeviceClient("bench", away) as client, pytest.raises(DeviceUnreachableError, match="'bench'"):
        client.cancel("one")

    assert time.monotonic() - started_s < 10
