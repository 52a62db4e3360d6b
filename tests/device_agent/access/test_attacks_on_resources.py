"""Callers that want nothing but to be in the way: docs/security.md has a row for each."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
from agent_harness import CALL_LIMIT_S
from edgenas.v1 import device_pb2, device_pb2_grpc
from paired_agents import channel_to, paired_agent

CONNECTIONS = 10_000
# Opens so many, says nothing, and holds them until its input ends.
CROWD = """
import resource, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held = []
for _ in range(count):
    one = socket.socket()
    one.settimeout(20)
    one.connect(("127.0.0.1", port))
    held.append(one)
print(len(held), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def crowd(port: str) -> Iterator[None]:
    """Keep ten thousand connections open that say nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", CROWD, port, str(CONNECTIONS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{CONNECTIONS}\n"
            yield
        finally:
            process.kill()


def describe(channel: grpc.Channel, timeout_s: float) -> device_pb2.DescribeDeviceResponse:
    stub = device_pb2_grpc.DeviceServiceStub(channel)
    return stub.DescribeDevice(device_pb2.DescribeDeviceRequest(), timeout=timeout_s, wait_for_ready=True)


def test_ten_thousand_idle_connections_keep_nobody_out(tmp_path: Path):
    with paired_agent(tmp_path) as (agent, keys):
        agent.describe()
        process = psutil.Process(agent.process.pid)
        resident, descriptors = process.memory_info().rss, process.num_fds()
        with crowd(agent.address.rpartition(":")[2]):
            # Who is connected notices nothing.
            assert describe(agent.channel, 5).hostname
            assert process.memory_info().rss - resident < 32 << 20
            assert process.num_fds() - descriptors < 300
            # Who comes anew waits until the first of those that say nothing were sent away.
            with channel_to(agent.address, agent.state_dir, keys) as channel:
                assert describe(channel, CALL_LIMIT_S).hostname
        deadline_s = time.monotonic() + CALL_LIMIT_S
        while process.num_fds() > descriptors + 5:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
