"""Strangers, former friends and friends that want more than they may: docs/security.md has a row for each."""

import contextlib
import datetime
import socket
import ssl
import time
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from agent_harness import CALL_LIMIT_S, Agent, conv_model, padded_model, sha256_of, spec, until, upload_parts
from edgenas.v1 import (
    access_pb2,
    access_pb2_grpc,
    benchmark_pb2,
    benchmark_pb2_grpc,
    device_pb2,
    device_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from paired_agents import DAY, NOW, Keys, channel_to, let_in, new_keys, paired_agent

from device_agent.access.clients import ClientStore
from device_agent.access.identity import IdentityFolder
from device_agent.access.roles import Role
from device_agent.serving.admission.callers import Anybody
from device_agent.serving.admission.guard import NEEDED_ROLE, Guard, StreamSlots
from device_agent.serving.server import CALLER_STREAM_LIMIT


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Keys]]:
    with paired_agent(tmp_path_factory.mktemp("paired"), "--history-limit-mb", "1") as running:
        yield running


def describe(channel: grpc.Channel) -> device_pb2.DescribeDeviceResponse:
    stub = device_pb2_grpc.DeviceServiceStub(channel)
    return stub.DescribeDevice(device_pb2.DescribeDeviceRequest(), timeout=5, wait_for_ready=False)


def status_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def assert_no_connection(agent: Agent, keys: Keys | None) -> None:
    """Assert that TLS sends these keys away, and that those who may call still can."""
    with channel_to(agent.address, agent.state_dir, keys) as channel:
        assert status_of(lambda: describe(channel)) == grpc.StatusCode.UNAVAILABLE
    assert agent.describe().hostname


def test_paired_client_is_served(paired: tuple[Agent, Keys]):
    agent, _ = paired
    record = agent.measure(agent.upload(conv_model()), request_id="mine")
    assert record.measurement.latency.samples >= 64


def test_no_certificate_no_connection(paired: tuple[Agent, Keys]):
    assert_no_connection(paired[0], None)


def test_plain_text_no_connection(paired: tuple[Agent, Keys]):
    with grpc.insecure_channel(paired[0].address) as channel:
        assert status_of(lambda: describe(channel)) == grpc.StatusCode.UNAVAILABLE


def test_foreign_certificate_of_the_same_name_no_connection(paired: tuple[Agent, Keys]):
    assert_no_connection(paired[0], new_keys("laptop"))


def test_certificate_signed_by_a_client_no_call(paired: tuple[Agent, Keys]):
    """A client cannot let others in. TLS takes what it signs; the guard looks at the certificate itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    agent, friend = paired
    stranger = new_keys("stranger")
    signed = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stranger")]))
        .issuer_name(x509.load_pem_x509_certificate(friend.pem).subject)
        .public_key(x509.load_pem_x509_certificate(stranger.pem).public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .sign(serialization.load_pem_private_key(friend.key, None), hashes.SHA256())
    )
    chain = signed.public_bytes(serialization.Encoding.PEM) + friend.pem
    keys = Keys(key=stranger.key, pem=chain, expires_at=NOW + DAY)
    with channel_to(agent.address, agent.state_dir, keys) as channel:
        assert status_of(lambda: describe(channel)) == grpc.StatusCode.UNAUTHENTICATED


def test_expired_certificate_no_connection(paired: tuple[Agent, Keys]):
    agent, _ = paired
    expired = new_keys("old", ends=NOW - DAY)
    let_in(agent.state_dir, "old", Role.ADMIN, expired)
    assert_no_connection(agent, expired)


def test_certificate_that_expires_ends_an_open_connection(paired: tuple[Agent, Keys]):
    agent, _ = paired
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=8)
    keys = new_keys("short", ends=ends)
    let_in(agent.state_dir, "short", Role.MEASURE, keys)
    with channel_to(agent.address, agent.state_dir, keys) as channel:
        assert describe(channel).hostname
        time.sleep(max(0.0, (ends - datetime.datetime.now(datetime.UTC)).total_seconds()) + 1)
        with pytest.raises(grpc.RpcError) as caught:
            describe(channel)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "expired at" in caught.value.details()
    assert "this board's clock says" in caught.value.details()


def test_revoked_client_is_out_at_once_also_of_open_streams(paired: tuple[Agent, Keys]):
    agent, _ = paired
    keys = new_keys("former")
    let_in(agent.state_dir, "former", Role.MEASURE, keys)
    with channel_to(agent.address, agent.state_dir, keys) as channel:
        watching = device_pb2_grpc.DeviceServiceStub(channel).WatchTelemetry(
            device_pb2.WatchTelemetryRequest(interval_ms=100), timeout=CALL_LIMIT_S
        )
        next(watching)
        ClientStore(agent.state_dir).revoke("former")
        assert status_of(lambda: list(watching)) == grpc.StatusCode.UNAUTHENTICATED
        assert status_of(lambda: describe(channel)) == grpc.StatusCode.UNAUTHENTICATED
    assert_no_connection(agent, keys)


def test_agent_with_another_certificate_is_not_talked_to(paired: tuple[Agent, Keys], tmp_path: Path):
    agent, keys = paired
    IdentityFolder(tmp_path).current()
    with channel_to(agent.address, tmp_path, keys) as channel:
        assert status_of(lambda: describe(channel)) == grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def query_only(paired: tuple[Agent, Keys]) -> Iterator[grpc.Channel]:
    agent, _ = paired
    keys = new_keys("reader")
    let_in(agent.state_dir, "reader", Role.QUERY, keys)
    with channel_to(agent.address, agent.state_dir, keys) as channel:
        yield channel


def test_query_only_client_reads(paired: tuple[Agent, Keys], query_only: grpc.Channel):
    benchmarks = benchmark_pb2_grpc.BenchmarkServiceStub(query_only)
    assert describe(query_only).hostname
    assert benchmarks.ListBenchmarks(benchmark_pb2.ListBenchmarksRequest(), timeout=5) is not None
    health = health_pb2_grpc.HealthStub(query_only).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(query_only)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection.ServerReflectionInfo(iter([asked]), timeout=5)
    assert len(answer.list_services_response.service) >= 4


def test_query_only_client_does_not_measure(query_only: grpc.Channel):
    benchmarks = benchmark_pb2_grpc.BenchmarkServiceStub(query_only)
    models = model_pb2_grpc.ModelServiceStub(query_only)
    access = access_pb2_grpc.AccessServiceStub(query_only)
    wanted = benchmark_pb2.RunBenchmarkRequest(
        request_id="mine", model_sha256=sha256_of(conv_model()), spec=spec()
    )
    calls: tuple[Callable[[], object], ...] = (
        lambda: list(benchmarks.RunBenchmark(wanted, timeout=5)),
        lambda: benchmarks.CancelBenchmark(
            benchmark_pb2.CancelBenchmarkRequest(request_id="mine"), timeout=5
        ),
        lambda: models.UploadModel(iter([model_pb2.UploadModelRequest()]), timeout=5),
        lambda: access.ListClients(access_pb2.ListClientsRequest(), timeout=5),
        lambda: access.RevokeClient(access_pb2.RevokeClientRequest(name="laptop"), timeout=5),
    )
    assert [status_of(call) for call in calls] == [grpc.StatusCode.PERMISSION_DENIED] * len(calls)


def test_measuring_client_cancels_its_own_jobs_alone(paired: tuple[Agent, Keys]):
    agent, _ = paired
    keys = new_keys("other")
    let_in(agent.state_dir, "other", Role.MEASURE, keys)
    running = agent.watch(agent.upload(conv_model()), spec(seed=5), request_id="of-laptop")
    until(running, "started")
    cancel = benchmark_pb2.CancelBenchmarkRequest(request_id="of-laptop")
    with channel_to(agent.address, agent.state_dir, keys) as channel:
        stub = benchmark_pb2_grpc.BenchmarkServiceStub(channel)
        assert status_of(lambda: stub.CancelBenchmark(cancel, timeout=5)) == grpc.StatusCode.PERMISSION_DENIED
    assert agent.cancel("of-laptop")


def test_admin_cancels_and_revokes_anybody(paired: tuple[Agent, Keys]):
    agent, _ = paired
    keys, victim = new_keys("boss"), new_keys("victim")
    let_in(agent.state_dir, "boss", Role.ADMIN, keys)
    let_in(agent.state_dir, "victim", Role.MEASURE, victim)
    running = agent.watch(agent.upload(conv_model()), spec(seed=6), request_id="to-be-ended")
    until(running, "started")
    with channel_to(agent.address, agent.state_dir, keys) as channel:
        benchmarks = benchmark_pb2_grpc.BenchmarkServiceStub(channel)
        access = access_pb2_grpc.AccessServiceStub(channel)
        assert benchmarks.CancelBenchmark(
            benchmark_pb2.CancelBenchmarkRequest(request_id="to-be-ended"), timeout=5
        ).cancelled
        names = {client.name for client in access.ListClients(access_pb2.ListClientsRequest()).clients}
        assert {"boss", "laptop", "victim"} <= names
        access.RevokeClient(access_pb2.RevokeClientRequest(name="victim"), timeout=5)
    assert_no_connection(agent, victim)


def renew(agent: Agent, keys: Keys, der: bytes, signature: bytes) -> None:
    access = access_pb2_grpc.AccessServiceStub(agent.channel)
    request = access_pb2.RenewCertificateRequest(certificate=der, signature=signature)
    access.RenewCertificate(request, timeout=CALL_LIMIT_S)


@pytest.mark.parametrize(
    ("fresh", "more", "message"),
    [
        (new_keys(), b"more", "no self-signed X.509|something follows it"),
        (new_keys(), bytes(5000), "4096 at most"),
        (new_keys(ca=True), b"", "may sign other certificates"),
        (new_keys(ends=NOW - DAY), b"", "it ends on"),
        (new_keys(ends=NOW + 4000 * DAY), b"", "it ends on"),
    ],
    ids=["more than one", "too large", "signs others", "has ended", "ends too late"],
)
def test_certificate_that_would_open_more_is_no_renewal(
    paired: tuple[Agent, Keys], fresh: Keys, more: bytes, message: str
):
    agent, keys = paired
    with pytest.raises(grpc.RpcError, match=message) as caught:
        renew(agent, keys, fresh.der + more, fresh.signed(keys.certificate.fingerprint))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_renewal_takes_nobody_elses_certificate(paired: tuple[Agent, Keys]):
    agent, keys = paired
    other, fresh = new_keys("other"), new_keys("fresh")
    let_in(agent.state_dir, "victim-of-renewal", Role.ADMIN, other)
    attempts = (
        # Its owner's signature would be needed, and even with it the entry is taken.
        (other.der, fresh.signed(keys.certificate.fingerprint)),
        (other.der, other.signed(keys.certificate.fingerprint)),
        # Signed for another one's renewal.
        (fresh.der, fresh.signed(other.certificate.fingerprint)),
        (fresh.der, b""),
    )
    codes = [status_of(lambda der=der, by=by: renew(agent, keys, der, by)) for der, by in attempts]
    assert codes == [grpc.StatusCode.INVALID_ARGUMENT] * 4
    renew(agent, keys, fresh.der, fresh.signed(keys.certificate.fingerprint))


def test_renewals_at_one_time_start_one_process(paired: tuple[Agent, Keys]):
    agent, keys = paired
    fresh = new_keys()

    def attempt(_: int) -> grpc.StatusCode | None:
        try:
            renew(agent, keys, fresh.der, b"")
        except grpc.RpcError as error:
            return error.code()
        return None

    with ThreadPoolExecutor(16) as pool:
        codes = Counter(pool.map(attempt, range(16)))
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] >= 1
    assert codes[grpc.StatusCode.RESOURCE_EXHAUSTED] >= 8
    assert codes.total() == 16


def test_upload_ends_when_its_client_is_revoked(paired: tuple[Agent, Keys]):
    agent, _ = paired
    keys = new_keys("uploader")
    let_in(agent.state_dir, "uploader", Role.MEASURE, keys)
    data = padded_model(3 << 20)

    def parts() -> Iterator[model_pb2.UploadModelRequest]:
        for number, part in enumerate(upload_parts(data, chunk=1 << 18)):
            if number == 4:
                ClientStore(agent.state_dir).revoke("uploader")
            yield part

    with channel_to(agent.address, agent.state_dir, keys) as channel:
        models = model_pb2_grpc.ModelServiceStub(channel)
        code = status_of(lambda: models.UploadModel(parts(), timeout=CALL_LIMIT_S))
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert not agent.models.HasModel(model_pb2.HasModelRequest(sha256=sha256_of(data))).present


def test_every_method_has_a_role():
    """A method that nobody thought of is open to nobody; one that nobody can call is a mistake."""
    services = (device_pb2, model_pb2, benchmark_pb2, access_pb2)
    served = {
        f"/{service.full_name}/{method.name}"
        for file in services
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if service.name != "PairingService"
    }
    assert served == {method for method in NEEDED_ROLE if method.startswith("/edgenas.")}


def test_method_without_a_role_is_open_to_nobody():
    """A service that somebody adds, and forgets in the table, is served to no one, not even to who may do everything."""

    class Forgotten(health_pb2_grpc.HealthServicer):
        def Check(self, request: Message, context: grpc.ServicerContext) -> Message:  # noqa: N802
            return health_pb2.HealthCheckResponse()

    class Elsewhere(grpc.ServerInterceptor):
        """Has the guard see the method under a name that the table lacks."""

        def intercept_service(self, continuation, details):  # type: ignore[no-untyped-def]
            forgotten = namedtuple("Details", "method")(details.method + "Forgotten")
            return Guard(Anybody(), StreamSlots(1, 1)).intercept_service(
                lambda _: continuation(details), forgotten
            )

    server = grpc.server(ThreadPoolExecutor(1), interceptors=[Elsewhere()])
    health_pb2_grpc.add_HealthServicer_to_server(Forgotten(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        code = status_of(lambda: check(health_pb2.HealthCheckRequest(), timeout=5))
    server.stop(None).wait()
    assert code == grpc.StatusCode.PERMISSION_DENIED


def test_oversized_message_is_refused(paired: tuple[Agent, Keys]):
    agent, _ = paired
    resident = psutil.Process(agent.process.pid).memory_info().rss
    chunk = model_pb2.UploadModelRequest(chunk=bytes(64 << 20))
    assert (
        status_of(lambda: agent.models.UploadModel(iter([chunk]), timeout=CALL_LIMIT_S))
        == grpc.StatusCode.RESOURCE_EXHAUSTED
    )
    assert psutil.Process(agent.process.pid).memory_info().rss - resident < 16 << 20
    assert agent.describe().hostname


def test_oversized_headers_are_refused(paired: tuple[Agent, Keys]):
    agent, _ = paired
    stub = device_pb2_grpc.DeviceServiceStub(agent.channel)
    heavy = [(f"x-{number}", "a" * 1000) for number in range(64)]
    code = status_of(
        lambda: stub.DescribeDevice(device_pb2.DescribeDeviceRequest(), timeout=5, metadata=heavy)
    )
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert agent.describe().hostname


def test_handshake_that_never_ends_is_ended(paired: tuple[Agent, Keys]):
    agent, _ = paired
    host, _, port = agent.address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = context.wrap_bio(incoming, outgoing, server_hostname="edgenas-agent")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    with socket.create_connection((host, int(port)), timeout=CALL_LIMIT_S) as slow:
        # A few bytes now and then, as who wants to hold a connection for ever sends them.
        began = time.monotonic()
        for byte in outgoing.read():
            try:
                slow.send(bytes([byte]))
            except OSError:
                break
            if time.monotonic() - began > CALL_LIMIT_S:
                pytest.fail("the agent holds a handshake open that never ends")
            time.sleep(0.2)
        with contextlib.suppress(ConnectionError):
            assert slow.recv(1) == b""
    assert time.monotonic() - began < CALL_LIMIT_S


def test_one_client_leaves_streams_to_others(paired: tuple[Agent, Keys]):
    agent, _ = paired
    keys = new_keys("greedy")
    let_in(agent.state_dir, "greedy", Role.MEASURE, keys)
    watch = device_pb2.WatchTelemetryRequest(interval_ms=60_000)
    with channel_to(agent.address, agent.state_dir, keys) as channel:
        stub = device_pb2_grpc.DeviceServiceStub(channel)
        held = [stub.WatchTelemetry(watch) for _ in range(CALLER_STREAM_LIMIT)]
        for stream in held:
            next(stream)
        assert status_of(lambda: next(stub.WatchTelemetry(watch))) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert next(agent.devices.WatchTelemetry(watch, timeout=CALL_LIMIT_S)).HasField("time")
        for stream in held:
            stream.cancel()
