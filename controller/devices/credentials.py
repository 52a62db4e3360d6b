"""What this host and a board know each other by: a folder a board, its private key never copied.

    identity.pem    this host's private key for this board, made when the two were paired, and its certificate
    agent.pem       the certificates that are taken for the board's agent: one, or two while the agent changes its own

Any other gRPC client can use these files: docs/querying.md.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controller.core.errors import ConfigurationError

SERVER_NAME = "edgenas-agent"
"""The name in every agent's certificate; the certificate itself is what is checked."""

WARN_BEFORE = timedelta(days=60)
RENEW_BEFORE = timedelta(days=90)
_VALID_FOR = timedelta(days=730)
# A board without a clock of its own wakes up in 1970, and must not find its hosts' certificates not valid yet.
_VALID_FROM = datetime(1970, 1, 1, tzinfo=UTC)
_IDENTITY, _AGENT, _LOCK = "identity.pem", "agent.pem", "lock"
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """One host's side of a pairing; everything is PEM."""

    key: str
    certificate: str
    agent_certificates: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of this host's certificate in DER."""
        return fingerprint(self.der)

    @property
    def der(self) -> bytes:
        """This host's certificate in DER."""
        return ssl.PEM_cert_to_DER_cert(self.certificate)

    @property
    def expires_at(self) -> datetime:
        """When this host's certificate ends."""
        return expires_at(self.certificate)

    @property
    def agent_expires_at(self) -> datetime:
        """When the last certificate ends that is taken for the agent's."""
        return max(map(expires_at, self.agent_certificates))

    @property
    def agent_fingerprints(self) -> tuple[str, ...]:
        """The SHA-256 of each certificate that is taken for the agent's."""
        return tuple(fingerprint(ssl.PEM_cert_to_DER_cert(pem)) for pem in self.agent_certificates)

    def taking(self, *ders: bytes) -> "Credentials":
        """Return these, with these certificates and no other taken for the agent's.

        Raises:
            ValueError: If one is no certificate.
        """
        pems = tuple(map(ssl.DER_cert_to_PEM_cert, ders))
        for pem in pems:
            expires_at(pem)
        return replace(self, agent_certificates=pems)

    def signed(self, message: bytes) -> bytes:
        """Return this host's signature of a message, ECDSA with SHA-256 in DER."""
        key = serialization.load_pem_private_key(self.key.encode("ascii"), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key.sign(message, ec.ECDSA(hashes.SHA256()))

    def for_channel(self) -> grpc.ChannelCredentials:
        """Return what gRPC connects with."""
        return grpc.ssl_channel_credentials(
            root_certificates="".join(self.agent_certificates).encode("ascii"),
            private_key=self.key.encode("ascii"),
            certificate_chain=self.certificate.encode("ascii"),
        )


def fingerprint(der: bytes) -> str:
    """Return what a certificate is known by: the SHA-256 of its DER, in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def expires_at(pem: str) -> datetime:
    """Return when a certificate ends."""
    return x509.load_pem_x509_certificate(pem.encode("ascii")).not_valid_after_utc


def new_credentials(name: str) -> Credentials:
    """Return a new key and its self-signed certificate.

    Args:
        name: Whose it is, for people who look at the certificate.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64] or "host"),
            x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, f"{serial:x}"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_VALID_FROM)
        .not_valid_after(datetime.now(UTC) + _VALID_FOR)
        # It signs nothing else: an agent that trusts it trusts nobody more.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Credentials(
        key=key.private_bytes(encoding, form, serialization.NoEncryption()).decode("ascii"),
        certificate=certificate.public_bytes(encoding).decode("ascii"),
    )


class CredentialsFolder:
    """Keeps the credentials of one device.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def identity_file(self) -> Path:
        """The file with this host's key and certificate."""
        return self._path / _IDENTITY

    @contextlib.contextmanager
    def changing(self) -> Iterator[Credentials]:
        """Yield what is kept, while no other process of this host changes it.

        Raises:
            ConfigurationError: If it cannot be read or locked.
        """
        try:
            lock = (self._path / _LOCK).open("a")
        except OSError as error:
            raise self._unwritable(error) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.read()

    def read(self) -> Credentials:
        """Return what is kept.

        Raises:
            ConfigurationError: If it cannot be read.
        """
        try:
            blocks = {
                match[1]: match[0]
                for match in _BLOCK.finditer((self._path / _IDENTITY).read_text(encoding="ascii"))
            }
            agent = (self._path / _AGENT).read_text(encoding="ascii")
            found = Credentials(
                key=blocks["PRIVATE KEY"],
                certificate=blocks["CERTIFICATE"],
                agent_certificates=tuple(match[0] for match in _BLOCK.finditer(agent)),
            )
            for pem in (found.certificate, *found.agent_certificates):
                expires_at(pem)
            if not found.agent_certificates:
                raise ValueError(f"{_AGENT} holds no certificate")
        except (OSError, ValueError, KeyError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigurationError(
                f"the keys in {self._path} cannot be read: {reason}; remove the device and add it again"
            ) from error
        return found

    def write(self, credentials: Credentials) -> None:
        """Keep these in place of what was kept.

        Raises:
            ConfigurationError: If the disk does not take them.
        """
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _put(self._path / _IDENTITY, credentials.key + credentials.certificate)
            _put(self._path / _AGENT, "".join(credentials.agent_certificates))
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"the keys in {self._path} cannot be written: {error.strerror}; make sure that the disk has room"
        )

    def remove(self) -> None:
        """Forget them."""
        shutil.rmtree(self._path, ignore_errors=True)


def _put(path: Path, text: str) -> None:
    """Put a file in place that its owner alone reads; after a crash it is the old one or the new one."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="ascii", delete=False) as draft:
        try:
            draft.write(text)
            draft.flush()
            os.fsync(draft.fileno())
            Path(draft.name).replace(path)
        except OSError:
            Path(draft.name).unlink(missing_ok=True)
            raise
