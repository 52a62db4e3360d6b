"""Three hosts and one agent for fifteen minutes, while either side is killed and links are cut at random.

python -m pytest -m slow -s tests/soak      prints what happened; EDGENAS_SOAK_S and EDGENAS_SOAK_JOBS make it shorter or longer
"""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from link import Link

from controller.devices.credentials import CredentialsFolder, expires_at, new_credentials
from device_agent.access.clients import Certificate, ClientStore
from device_agent.access.identity import IdentityFolder
from device_agent.access.roles import Role
from device_agent.serving.storage.history import HISTORY_FILE, History
from device_agent.serving.storage.journal import JOURNAL_FILE, Journal
from device_agent.serving.wire import answers

SOAK_S = float(os.environ.get("EDGENAS_SOAK_S", "900"))
JOBS = int(os.environ.get("EDGENAS_SOAK_JOBS", "300"))
HOSTS = ("alpha", "beta", "gamma")
LIMIT_S = 2 * SOAK_S + 300
HOST = Path(__file__).with_name("host.py")
EVENTS = ("kill the agent", "kill a host", "cut a link", "cut a link", "freeze a link")


class Agent:
    """The agent, which comes back at the same address."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.log = state_dir.with_suffix(".log")
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "device_agent", "serve", "--address", self.address]
        command += ["--state-dir", str(self.state_dir)]
        command += ["--gate-limit-s", "0", "--retries", "0", "--measure-limit-s", "1"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, "--exit-on-stdin-eof"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), self.log.read_text()[-2000:]
        self.address = line.removeprefix("listening on ").strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


class Host:
    """A host of its own process, with its link and its results."""

    def __init__(self, name: str, folder: Path, agent: Agent, end_s: float) -> None:
        self.name = name
        self.link = Link(agent.address)
        self.results = folder / f"{name}.jsonl"
        self._log = folder / f"{name}.log"
        own = new_credentials(name)
        pem = IdentityFolder(agent.state_dir).current().certificate.decode("ascii")
        CredentialsFolder(folder / name).write(
            type(own)(key=own.key, certificate=own.certificate, agent_certificates=(pem,))
        )
        ClientStore(agent.state_dir).add(
            name,
            Role.MEASURE,
            Certificate(pem=own.certificate, subject=name, expires_at=expires_at(own.certificate)),
            own.expires_at,
        )
        self._command = [sys.executable, str(HOST), name, self.link.address, str(folder / name)]
        self._command += [str(self.results), str(JOBS // len(HOSTS)), str(end_s)]
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(self._command, stderr=log)

    def done(self) -> list[dict[str, object]]:
        lines = self.results.read_text().splitlines() if self.results.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def check(self) -> bool:
        """Return whether it has all that it wanted; fail if it gave up."""
        code = self.process.poll()
        assert code in (None, 0), f"host {self.name} gave up: {self._log.read_text()[-1000:]}"
        return code == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def everyone(folder: Path, end_s: float) -> Iterator[tuple[Agent, list[Host]]]:
    agent = Agent(folder / "agent")
    hosts = [Host(name, folder, agent, end_s) for name in HOSTS]
    try:
        yield agent, hosts
    finally:
        for host in hosts:
            host.kill()
            host.link.close()
        agent.kill()


@pytest.mark.slow
@pytest.mark.timeout(0)  # it has limits of its own
def test_nothing_is_lost_or_measured_twice(tmp_path: Path) -> None:
    rng = random.Random(4)
    began_s = time.monotonic()
    happened: Counter[str] = Counter()
    with everyone(tmp_path, began_s + SOAK_S) as (agent, hosts):
        while not all(finished := [host.check() for host in hosts]):
            assert time.monotonic() - began_s < LIMIT_S, {host.name: len(host.done()) for host in hosts}
            time.sleep(rng.uniform(10, 40))
            event, host = rng.choice(EVENTS), rng.choice(hosts)
            if event == "kill the agent":
                agent.kill()
                time.sleep(rng.uniform(0, 3))
                agent.start()
            elif finished[hosts.index(host)]:
                continue
            elif event == "kill a host":
                host.kill()
                time.sleep(rng.uniform(0, 3))
                host.start()
            elif event == "cut a link":
                host.link.cut(rng.uniform(0, 5))
            else:
                host.link.freeze(rng.uniform(5, 30))
            happened[event] += 1
        took_s = time.monotonic() - began_s
        results = [line for host in hosts for line in host.done()]
        log = agent.log.read_text()
    told = Counter(str(line["request_id"]) for line in results)
    starts = Counter(re.findall(r"benchmark (\S+) of model \S+ starts", log))
    ends = Counter(re.findall(r"benchmark (\S+) ends with a median", log))
    print(f"\n{took_s:.0f} s; {dict(happened)}")
    print(
        f"{len(told)} results at {len(HOSTS)} hosts; the agent began {starts.total()} jobs and ended {ends.total()}"
    )

    assert len(told) >= JOBS
    assert set(told.values()) == {1}, "every result reaches its host, once"
    assert set(ends.values()) == {1}, "nothing is measured twice under one request id"
    # What began once more was lost in between, with the agent that was killed.
    assert starts.total() - len(told) <= happened["kill the agent"]
    assert "Traceback" not in log
    assert " is lost: " not in log
    with contextlib.closing(Journal(tmp_path / "agent" / JOURNAL_FILE)) as journal:
        assert journal.entries() == [], "every accepted job has ended"
    with contextlib.closing(History(tmp_path / "agent" / HISTORY_FILE)) as history:
        assert len(history.page(size=10 * JOBS).summaries) == len(told), (
            "nothing was measured that nobody got"
        )
        for line in results:
            found = history.find(str(line["request_id"]))
            assert found is not None
            record = answers.record_to_json(found[1])
            assert record["measurement"]["latency"]["median_ms"] == line["median_ms"]
    print("each accepted job ended once, each result reached its host, nothing was measured twice")
