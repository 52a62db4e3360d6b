"""A board and a host become acquainted, and stay so, with the commands that people type."""

import contextlib
import ctypes
import json
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import grpc
import psutil
import pytest
from boards import LIMIT_S, Board, edgenas, serving
from command_line import PYTHON
from edgenas.v1 import access_pb2, access_pb2_grpc

from controller.devices import connection
from controller.devices.client import DeviceClient
from controller.devices.credentials import CredentialsFolder, new_credentials


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with serving(tmp_path / "board") as running:
        yield running


@pytest.fixture
def paired(board: Board, tmp_path: Path) -> tuple[Board, Path]:
    """Return a board and the home of a host that knows it as `pi`."""
    home = tmp_path / "home"
    with board.pairing() as pairing:
        done = pairing.add(home, "pi")
        assert done.returncode == 0, done.stderr
        assert "paired with" in pairing.said()
    return board, home


def test_paired_board_measures_and_is_asked(paired: tuple[Board, Path], small_onnx: Path) -> None:
    _, home = paired

    measured = edgenas(home, "bench", str(small_onnx), "--device", "pi", "--rounds", "1", "--json")
    asked = edgenas(home, "benchmarks", "list", "--device", "pi", "--json")

    assert measured.returncode == 0, measured.stderr
    assert len(json.loads(asked.stdout)) == 1


def test_keys_are_made_on_each_side_and_read_by_their_owner_alone(paired: tuple[Board, Path]) -> None:
    board, home = paired
    private = [board.state_dir / "identity/current.json", home / "devices/pi/identity.pem"]

    keys = [re.search(r"PRIVATE KEY-----(.+?)-----END", path.read_text(), re.DOTALL) for path in private]

    assert [oct(path.stat().st_mode & 0o777) for path in private] == ["0o600", "0o600"]
    assert len({match[1].replace("\\n", "").replace("\n", "") for match in keys if match}) == 2
    host_certificate = (home / "devices/pi/identity.pem").read_text()
    assert "PRIVATE KEY" not in (board.state_dir / "clients.json").read_text()
    assert "PRIVATE KEY" not in (home / "devices/pi/agent.pem").read_text()
    assert "CERTIFICATE" in host_certificate


def test_host_that_nobody_tells_the_code_says_how_to(board: Board, tmp_path: Path) -> None:
    with board.pairing() as pairing:
        asked = edgenas(
            tmp_path, "devices", "add", board.address, "--name", "pi", "--pairing-port", str(pairing.port)
        )

    assert asked.returncode == 2
    assert "no code was given, and nobody was paired" in asked.stderr
    assert "Traceback" not in asked.stderr


def test_second_code_at_one_time_is_refused_as_such(board: Board) -> None:
    host, _, port = board.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        # Where somebody else has the port already, that is as good.
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server((host, int(port) + 1)))
        other = board.run("pair")

    assert other.returncode == 2
    assert "Address already in use" in other.stderr
    assert "end the `edgenas-agent pair` that may show a code already" in other.stderr


def test_host_that_does_not_exist_is_told_from_a_board_that_waits_for_nobody(tmp_path: Path) -> None:
    done = edgenas(tmp_path, "devices", "add", "board.invalid", "--name", "pi")

    assert done.returncode == 2
    assert "there is no host 'board.invalid'" in done.stderr


def test_board_with_tls_that_is_added_without_says_what_to_leave_out(board: Board, tmp_path: Path) -> None:
    done = edgenas(tmp_path, "devices", "add", board.address, "--name", "pi", "--insecure")

    assert done.returncode == 2
    assert done.stderr.strip().endswith("an agent that has TLS is paired with: leave --insecure out")


def test_code_is_good_for_one_host(board: Board, tmp_path: Path) -> None:
    with board.pairing() as pairing:
        first = pairing.add(tmp_path / "first", "pi")
        pairing.said()
        second = pairing.add(tmp_path / "second", "pi")

    assert first.returncode == 0
    assert second.returncode == 2
    assert "nobody waits to be paired" in second.stderr
    assert len(board.clients()) == 1


def test_replayed_code_does_not_pair_at_the_next_pairing(board: Board, tmp_path: Path) -> None:
    with board.pairing() as pairing:
        assert pairing.add(tmp_path / "first", "pi").returncode == 0
    with board.pairing() as again:
        replayed = again.add(tmp_path / "second", "pi", code=pairing.code)

    assert replayed.returncode == 2
    assert "the code is wrong" in replayed.stderr
    assert len(board.clients()) == 1
    assert not (tmp_path / "second/devices.json").exists()


def test_guessed_codes_lock_it_for_everyone(board: Board, tmp_path: Path) -> None:
    with board.pairing() as pairing:
        wrong = f"{(int(pairing.code.replace('-', '')) + 1) % 10**8:08}"
        tries = [pairing.add(tmp_path / "guesser", "pi", code=wrong) for _ in range(5)]
        said = pairing.said()
        late = pairing.add(tmp_path / "owner", "pi")

    assert [done.returncode for done in tries] == [2] * 5
    assert "tries left: 4" in tries[0].stderr
    assert "locked now" in tries[4].stderr
    assert "nobody was paired" in said
    assert pairing.process.returncode == 2
    assert late.returncode == 2
    assert board.clients() == []


class ManInTheMiddle(access_pb2_grpc.PairingServiceServicer):
    """Answers hosts with a certificate of its own, and passes what they say on to the board."""

    def __init__(self, board_port: int) -> None:
        self.own = new_credentials("edgenas-agent")
        self._board_port = board_port
        self.seen: list[bytes] = []

    def Pair(  # noqa: N802 (generated name)
        self, request_iterator: Iterator[access_pb2.PairRequest], context: grpc.ServicerContext
    ) -> Iterator[access_pb2.PairResponse]:
        pem = ssl.get_server_certificate(("127.0.0.1", self._board_port))
        channel = grpc.secure_channel(
            f"127.0.0.1:{self._board_port}",
            grpc.ssl_channel_credentials(root_certificates=pem.encode()),
            options=(("grpc.ssl_target_name_override", "edgenas-agent"),),
        )

        def passed_on() -> Iterator[access_pb2.PairRequest]:
            for request in request_iterator:
                self.seen.append(request.SerializeToString())
                yield request

        with channel:
            try:
                yield from access_pb2_grpc.PairingServiceStub(channel).Pair(passed_on(), timeout=LIMIT_S)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())


def test_man_in_the_middle_pairs_neither_side(board: Board, tmp_path: Path) -> None:
    with board.pairing() as pairing:
        attacker = ManInTheMiddle(pairing.port)
        # Its certificate must bear the name that hosts ask for; the board's own does.
        server = grpc.server(ThreadPoolExecutor(2))
        access_pb2_grpc.add_PairingServiceServicer_to_server(attacker, server)
        identity = _named_identity()
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([identity]))
        server.start()
        attacked = pairing.add(tmp_path / "home", "pi", port=port)
        server.stop(None).wait(LIMIT_S)
        undisturbed = pairing.add(tmp_path / "home", "pi")

    assert attacked.returncode == 2
    assert "somebody stands between" in attacked.stderr
    assert len(attacker.seen) == 2, "the attack went through both of the host's messages"
    assert not any(pairing.code.replace("-", "").encode() in seen for seen in attacker.seen)
    # It has cost one try, no more.
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert len(board.clients()) == 1


def test_who_does_not_know_the_code_is_not_taken_for_the_board(tmp_path: Path) -> None:
    """An impostor without a board behind it answers as far as it can."""

    class Impostor(access_pb2_grpc.PairingServiceServicer):
        def Pair(  # noqa: N802 (generated name)
            self, request_iterator: Iterator[access_pb2.PairRequest], context: grpc.ServicerContext
        ) -> Iterator[access_pb2.PairResponse]:
            from spake2 import SPAKE2_B

            next(request_iterator)
            message = SPAKE2_B(b"00000000").start()
            yield access_pb2.PairResponse(challenge=access_pb2.PairChallenge(message=message))
            next(request_iterator)
            yield access_pb2.PairResponse(accepted=access_pb2.PairAccepted(proof=bytes(32), role=3))

    server = grpc.server(ThreadPoolExecutor(2))
    access_pb2_grpc.add_PairingServiceServicer_to_server(Impostor(), server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([_named_identity()]))
    server.start()
    done = edgenas(
        tmp_path, "devices", "add", "127.0.0.1", "--code", "1234-5678", "--pairing-port", str(port)
    )
    server.stop(None).wait(LIMIT_S)

    assert done.returncode == 2
    assert "does not know the code" in done.stderr
    assert not (tmp_path / "devices.json").exists()


def _named_identity() -> tuple[bytes, bytes]:
    """Return a key and certificate that bear the name that hosts ask for."""
    made = subprocess.run(
        [PYTHON, "-m", "device_agent.access.certificates", "make", "impostor"],
        capture_output=True,
        check=True,
    )
    identity = json.loads(made.stdout)
    return identity["private_key"].encode(), identity["certificate"].encode()


def test_role_is_the_one_that_the_board_gave(board: Board, tmp_path: Path, small_onnx: Path) -> None:
    with board.pairing("--role", "query") as pairing:
        assert "role query" in pairing.add(tmp_path / "home", "pi").stdout

    refused = edgenas(tmp_path / "home", "bench", str(small_onnx), "--device", "pi")
    read = edgenas(tmp_path / "home", "benchmarks", "list", "--device", "pi", "--json")

    assert refused.returncode == 2
    assert "has the role query, and UploadModel needs the role measure" in refused.stderr
    assert json.loads(read.stdout) == []


def test_revoked_host_is_told_so(paired: tuple[Board, Path]) -> None:
    board, home = paired
    (client,) = board.clients()
    assert board.run("clients", "revoke", client["name"]).returncode == 0

    refused = edgenas(home, "devices", "ping", "pi")

    assert refused.returncode == 2
    assert "it does not take this host's certificate" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_agent_installed_anew_is_not_trusted(paired: tuple[Board, Path], tmp_path: Path) -> None:
    board, home = paired
    assert board.process.stdin is not None
    board.process.stdin.close()
    board.process.wait(LIMIT_S)
    with serving(tmp_path / "anew", board.address):
        refused = edgenas(home, "devices", "ping", "pi")

    assert refused.returncode == 2
    assert "is not the one that it was paired with" in refused.stderr


@pytest.mark.slow
def test_removed_board_forgets_the_host(paired: tuple[Board, Path]) -> None:
    board, home = paired

    removed = edgenas(home, "devices", "remove", "pi")

    assert removed.stdout == "removed pi\n"
    assert board.clients() == []
    assert not (home / "devices/pi").exists()


def test_host_renews_its_certificate(paired: tuple[Board, Path]) -> None:
    board, home = paired
    before = (board.clients()[0]["fingerprint"], (home / "devices/pi/identity.pem").read_text())

    assert edgenas(home, "devices", "rotate", "pi").returncode == 0

    after = (board.clients()[0]["fingerprint"], (home / "devices/pi/identity.pem").read_text())
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert edgenas(home, "devices", "ping", "pi").returncode == 0


@pytest.mark.slow
def test_agent_changes_its_certificate_when_every_host_knows_it(paired: tuple[Board, Path]) -> None:
    board, home = paired
    with board.pairing() as pairing:
        assert pairing.add(home.with_name("other"), "pi").returncode == 0
    before = _shown(board)

    waits = board.run("rotate").stdout
    assert edgenas(home, "devices", "ping", "pi").returncode == 0
    one_knows = _shown(board)
    assert edgenas(home.with_name("other"), "devices", "ping", "pi").returncode == 0
    both_know = _shown(board)

    assert "waits for" in waits
    assert before == one_knows != both_know
    for known in (home, home.with_name("other")):
        assert edgenas(known, "devices", "ping", "pi").returncode == 0
        # The old key is worth nothing any more: it may be why there is a new one.
        assert CredentialsFolder(known / "devices/pi").read().agent_certificates == (both_know,)


def _shown(board: Board) -> str:
    host, _, port = board.address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


@pytest.mark.parametrize("code", ["", "1234", "1234-567x", "12345678 9"])
def test_code_that_is_none_is_refused_before_a_try_is_lost(board: Board, tmp_path: Path, code: str) -> None:
    with board.pairing() as pairing:
        refused = edgenas(
            tmp_path,
            *("devices", "add", board.address, "--code", code or " ", "--pairing-port", str(pairing.port)),
        )
        assert pairing.add(tmp_path, "pi").returncode == 0

    assert refused.returncode == 2
    assert "expected the 8 digits" in refused.stderr


def test_board_without_tls_is_asked_on_loopback_alone(tmp_path: Path) -> None:
    refused = edgenas(tmp_path, "devices", "add", "192.0.2.1", "--insecure")

    assert refused.returncode == 2
    assert "is not paired, and without TLS only this machine's own agents are asked" in refused.stderr


def client_of(board: Board, home: Path) -> DeviceClient:
    """Return a client in this process, beside those of the commands."""
    return DeviceClient("pi", board.address, 30, credentials=CredentialsFolder(home / "devices/pi"))


@pytest.mark.slow
def test_search_that_runs_meanwhile_uses_the_renewed_certificate(paired: tuple[Board, Path]) -> None:
    board, home = paired
    with client_of(board, home) as running:
        running.describe()
        assert edgenas(home, "devices", "rotate", "pi").returncode == 0

        assert running.describe().hostname


@pytest.mark.slow
def test_search_that_runs_meanwhile_knows_the_agents_new_certificate(
    paired: tuple[Board, Path], tmp_path: Path
) -> None:
    board, home = paired
    with client_of(board, home) as running:
        running.describe()
        board.run("rotate")
        # Another process of this host is told, and the agent then shows it.
        assert edgenas(home, "devices", "ping", "pi").returncode == 0
        assert board.process.stdin is not None
        board.process.stdin.close()
        board.process.wait(LIMIT_S)
        with serving(board.state_dir, board.address):
            assert running.describe().hostname


@pytest.mark.slow
def test_certificate_that_ends_soon_is_renewed_by_itself(
    paired: tuple[Board, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    board, home = paired
    before = board.clients()[0]["fingerprint"]
    with client_of(board, home) as client:
        with monkeypatch.context() as late:
            late.setattr(connection, "RENEW_BEFORE", timedelta(days=800))
            client.describe()
        client.describe()

    after = board.clients()[0]["fingerprint"]
    assert before != after
    assert after == CredentialsFolder(home / "devices/pi").read().fingerprint


@pytest.mark.slow
def test_end_of_a_certificate_is_told_before(
    paired: tuple[Board, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    board, home = paired
    monkeypatch.setattr(connection, "WARN_BEFORE", timedelta(days=800))
    with client_of(board, home) as client:
        client.describe()

    assert "this host's certificate for device 'pi' ends on 20" in caplog.text
    assert "the agent's certificate for device 'pi' ends on 20" in caplog.text


@pytest.mark.slow
def test_damaged_keys_are_told_in_one_line(paired: tuple[Board, Path]) -> None:
    _, home = paired
    damaged = ("", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    for file in ("identity.pem", "agent.pem"):
        path = home / "devices/pi" / file
        whole = path.read_text()
        for text in damaged:
            path.write_text(text)
            refused = edgenas(home, "devices", "ping", "pi")
            assert refused.returncode == 2
            assert "cannot be read" in refused.stderr
            assert refused.stderr.count("\n") == 1
        path.write_text(whole)
    path.write_text("")

    listed = edgenas(home, "devices", "list")
    removed = edgenas(home, "devices", "remove", "pi")

    assert listed.returncode == 0
    assert "removed pi; its agent was not told" in removed.stdout


def test_renewals_at_one_time_leave_a_key_that_the_agent_knows(paired: tuple[Board, Path]) -> None:
    board, home = paired
    with client_of(board, home) as first, client_of(board, home) as second, ThreadPoolExecutor(2) as pool:
        for renewal in [pool.submit(client.renew) for client in (first, second)]:
            renewal.result(LIMIT_S)
        assert first.describe().hostname
        assert second.describe().hostname

    assert edgenas(home, "devices", "ping", "pi").returncode == 0
    assert board.clients()[0]["fingerprint"] == CredentialsFolder(home / "devices/pi").read().fingerprint


def interrupt(pid: int, *, main_thread: bool) -> None:
    """Send a process that waits what Ctrl-C sends, as the kernel may: to its main thread, or to any other."""
    process = psutil.Process(pid)
    while True:
        before = process.num_ctx_switches()
        time.sleep(0.2)
        # It looks up twice a second, or sleeps.
        if (
            process.status() == psutil.STATUS_SLEEPING
            and process.num_ctx_switches().voluntary - before.voluntary <= 1
        ):
            break
    others = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir() if int(path.name) != pid]
    assert ctypes.CDLL(None).tgkill(pid, pid if main_thread else others[0], signal.SIGINT) == 0


@pytest.mark.parametrize("main_thread", [True, False])
def test_interrupted_pairing_pairs_nobody(board: Board, tmp_path: Path, main_thread: bool) -> None:
    with board.pairing() as pairing:
        interrupt(pairing.process.pid, main_thread=main_thread)
        said = pairing.said()
        late = pairing.add(tmp_path, "pi")

    assert "interrupted; the code is no longer good" in said
    assert late.returncode == 2
    assert board.clients() == []


def test_pairing_without_an_agent_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [PYTHON.with_name("edgenas-agent"), "pair", "--state-dir", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 2
    assert "no agent has run with the state directory" in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_strangers_who_say_nothing_are_sent_away_and_cost_no_try(board: Board, tmp_path: Path) -> None:
    with board.pairing() as pairing:
        pem = ssl.get_server_certificate(("127.0.0.1", pairing.port))
        credentials = grpc.ssl_channel_credentials(root_certificates=pem.encode())
        options = (("grpc.ssl_target_name_override", "edgenas-agent"),)
        silent, over = threading.Event(), threading.Event()

        def say_nothing() -> Iterator[access_pb2.PairRequest]:
            silent.set()
            over.wait(LIMIT_S)
            yield from ()

        with grpc.secure_channel(f"127.0.0.1:{pairing.port}", credentials, options=options) as channel:
            stub = access_pb2_grpc.PairingServiceStub(channel)
            calls = [stub.Pair(say_nothing(), timeout=LIMIT_S) for _ in range(8)]
            assert silent.wait(LIMIT_S)
            codes = {call.code() for call in calls}
            over.set()
        paired = pairing.add(tmp_path, "pi")

    assert codes == {grpc.StatusCode.CANCELLED}
    assert paired.returncode == 0, paired.stderr
