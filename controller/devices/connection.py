"""The channel to one agent, and what it is opened with."""

import logging
import platform
import threading
from dataclasses import replace
from datetime import UTC, datetime

import grpc
from edgenas.v1 import (
    access_pb2,
    access_pb2_grpc,
    benchmark_pb2_grpc,
    device_pb2_grpc,
    model_pb2_grpc,
)

from controller.core.errors import DeviceError
from controller.devices.address import is_loopback
from controller.devices.credentials import (
    RENEW_BEFORE,
    SERVER_NAME,
    WARN_BEFORE,
    Credentials,
    CredentialsFolder,
    fingerprint,
    new_credentials,
)
from controller.devices.refusal import handshake_refusal

logger = logging.getLogger(__name__)

_DEADLINE_S = 15.0
_OPTIONS = (
    # A stream may be silent for as long as a queue is long: this notices a dead agent or link.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.ssl_target_name_override", SERVER_NAME),
    # A proxy that a company sets in the environment cannot reach a board on the bench.
    ("grpc.enable_http_proxy", 0),
)


class Connection:
    """Opens channels, and keeps this host's and the agent's certificates up to date. May be used from any thread.

    Args:
        name: What the user calls the device.
        address: `HOST:PORT` of its agent.
        folder: Its credentials; None for an agent without TLS, which only this machine's loopback may reach.

    Raises:
        DeviceError: If there are no credentials and the address is no loopback.
        ConfigurationError: If the credentials cannot be read.
    """

    def __init__(self, name: str, address: str, folder: CredentialsFolder | None) -> None:
        if folder is None and not is_loopback(address):
            raise DeviceError(
                f"device {name!r} at {address} is not paired, and without TLS only this machine's own agents are asked; "
                f"`edgenas devices remove {name}`, then `edgenas devices add {address} --name {name}` pairs it"
            )
        self._name = name
        self._address = address
        self._folder = folder
        self._lock = threading.Lock()
        self._channels: list[grpc.Channel] = []
        self.credentials = folder.read() if folder else None
        self._open()

    def _open(self) -> None:
        # Calls that are under way on an older channel go on there.
        if self.credentials is None:
            channel = grpc.insecure_channel(self._address, options=_OPTIONS)
        else:
            channel = grpc.secure_channel(self._address, self.credentials.for_channel(), options=_OPTIONS)
        self._channels.append(channel)
        self.devices = device_pb2_grpc.DeviceServiceStub(channel)
        self.models = model_pb2_grpc.ModelServiceStub(channel)
        self.benchmarks = benchmark_pb2_grpc.BenchmarkServiceStub(channel)
        self._access = access_pb2_grpc.AccessServiceStub(channel)

    def close(self) -> None:
        """Close every channel."""
        with self._lock:
            for channel in self._channels:
                channel.close()

    def refresh(self) -> bool:
        """Take what another process of this host has agreed with the agent meanwhile; return whether it is news.

        Raises:
            ConfigurationError: If the credentials cannot be read.
        """
        with self._lock:
            found = self._folder.read() if self._folder else None
            if found == self.credentials:
                return False
            self.credentials = found
            self._open()
            return True

    @property
    def known_certificates(self) -> tuple[str, ...]:
        """Fingerprints of the certificates that are taken for the agent's."""
        return self.credentials.agent_fingerprints if self.credentials else ()

    def learn(self, *certificates: bytes) -> bool:
        """Take these certificates, and no other, for the agent's from now on; return whether that is news.

        Args:
            certificates: The one that the agent shows and the one that it will show, in DER.

        Raises:
            DeviceError: If one is no certificate.
            ConfigurationError: If they cannot be kept.
        """
        if self._folder is None or self.credentials is None:
            return False
        if set(map(fingerprint, certificates)) == set(self.known_certificates):
            return False
        with self._lock, self._folder.changing() as kept:
            try:
                self._keep(kept.taking(*certificates))
            except ValueError as error:
                raise DeviceError(
                    f"device {self._name!r} names a certificate that is none: {error}; update edgenas there"
                ) from error
        return True

    def look_after(self) -> None:
        """Renew this host's certificate before it ends, and warn of an end that comes near.

        Raises:
            ConfigurationError: If the credentials cannot be written.
        """
        if self.credentials is None:
            return
        now = datetime.now(UTC)
        if self.credentials.expires_at - now < RENEW_BEFORE:
            try:
                self.renew()
            except grpc.RpcError as error:
                logger.info("device %r did not renew this host's certificate: %s", self._name, error)
        for whose, end in (
            ("this host's", self.credentials.expires_at),
            ("the agent's", self.credentials.agent_expires_at),
        ):
            if end - now < WARN_BEFORE:
                logger.warning(
                    "%s certificate for device %r ends on %s; `edgenas devices rotate %s` renews the host's, "
                    "`edgenas-agent rotate` on the board the agent's",
                    whose,
                    self._name,
                    f"{end:%Y-%m-%d}",
                    self._name,
                )

    def renew(self) -> None:
        """Replace this host's key and certificate; the agent takes both until the new one is used.

        Raises:
            ConfigurationError: If the credentials cannot be written.
            grpc.RpcError: If the agent does not answer, or refuses.
        """
        assert self._folder is not None
        with self._lock, self._folder.changing() as kept:
            if kept != self.credentials:
                # Another process of this host was faster.
                self._keep(kept)
                return
            fresh = new_credentials(platform.node())
            signature = fresh.signed(f"edgenas renew {kept.fingerprint}".encode("ascii"))
            request = access_pb2.RenewCertificateRequest(certificate=fresh.der, signature=signature)
            self._access.RenewCertificate(request, timeout=_DEADLINE_S)
            self._keep(replace(fresh, agent_certificates=kept.agent_certificates))

    def refusal(self) -> str | None:
        """Return why TLS fails between the two; None where it does not, or nobody is there."""
        if self._folder is None or self.credentials is None:
            return None
        return handshake_refusal(
            self._address, self._folder.identity_file, self.credentials.agent_certificates
        )

    def leave(self) -> None:
        """Have the agent forget this host.

        Raises:
            grpc.RpcError: If the agent does not answer, or refuses.
        """
        self._access.RevokeClient(access_pb2.RevokeClientRequest(), timeout=_DEADLINE_S)

    def _keep(self, credentials: Credentials) -> None:
        assert self._folder is not None
        self._folder.write(credentials)
        self.credentials = credentials
        self._open()
