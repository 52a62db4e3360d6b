"""Agents with TLS in processes of their own, and the commands that people type at a board and at a host."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from command_line import PYTHON, ROUGHLY, command, environment

LIMIT_S = 60
AGENT = str(PYTHON.with_name("edgenas-agent"))


class Board:
    """An agent with TLS in a process of its own, and the commands of its state directory."""

    def __init__(self, state_dir: Path, process: "subprocess.Popen[str]", address: str) -> None:
        self.state_dir = state_dir
        self.process = process
        self.address = address

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        line = [AGENT, *arguments, "--state-dir", str(self.state_dir)]
        return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_S)

    def clients(self) -> list[dict[str, str]]:
        return json.loads(self.run("clients", "list", "--json").stdout)

    @contextlib.contextmanager
    def pairing(self, *options: str) -> Iterator["Pairing"]:
        """Show a code, on a free port."""
        line = [AGENT, "pair", "--address", "127.0.0.1:0", *options, "--state-dir", str(self.state_dir)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shown:
            assert shown.stdout is not None
            code = shown.stdout.readline().removeprefix("code: ").strip()
            port = re.search(r"--pairing-port (\d+)", shown.stdout.readline())
            assert port is not None
            try:
                yield Pairing(self.address, code, int(port[1]), shown)
            finally:
                shown.kill()


class Pairing:
    """A code that a board shows."""

    def __init__(self, address: str, code: str, port: int, process: "subprocess.Popen[str]") -> None:
        self.address = address
        self.code = code
        self.port = port
        self.process = process

    def add(
        self, home: Path, name: str, *, code: str | None = None, port: int | None = None
    ) -> "subprocess.CompletedProcess[str]":
        chosen = ["--code", code or self.code, "--pairing-port", str(port or self.port)]
        return edgenas(home, "devices", "add", self.address, "--name", name, *chosen)

    def said(self) -> str:
        """Return the rest of what it says, once it has ended."""
        return "".join(self.process.communicate(timeout=LIMIT_S))


def edgenas(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment(home),
    )


@contextlib.contextmanager
def serving(state_dir: Path, address: str = "127.0.0.1:0", options: Sequence[str] = ()) -> Iterator[Board]:
    line = [AGENT, "serve", "--address", address, "--state-dir", str(state_dir), "--exit-on-stdin-eof"]
    with (
        state_dir.with_suffix(".log").open("a") as log,
        subprocess.Popen(
            [*line, *ROUGHLY, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        bound = process.stdout.readline().removeprefix("listening on ").strip()
        assert bound, state_dir.with_suffix(".log").read_text()
        try:
            yield Board(state_dir, process, bound)
            process.stdin.close()
            process.wait(LIMIT_S)
        finally:
            process.kill()
