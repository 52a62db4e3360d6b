"""Agents with TLS, and clients that they were paired with, or were not."""

import contextlib
import datetime
import ssl
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from agent_harness import Agent, running_agent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_agent.access.clients import Certificate, ClientStore
from device_agent.access.identity import IdentityFolder
from device_agent.access.roles import Role

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """A client's key and self-signed certificate, in PEM."""

    key: bytes
    pem: bytes
    expires_at: datetime.datetime

    @property
    def certificate(self) -> Certificate:
        subject = x509.load_pem_x509_certificate(self.pem).subject.rfc4514_string()
        return Certificate(pem=self.pem.decode(), subject=subject, expires_at=self.expires_at)

    def signed(self, fingerprint: str) -> bytes:
        """Return what a client proves with that a renewed certificate is its own."""
        key = serialization.load_pem_private_key(self.key, None)
        return key.sign(f"edgenas renew {fingerprint}".encode(), ec.ECDSA(hashes.SHA256()))

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.pem.decode())


def new_keys(
    name: str = "laptop",
    *,
    ends: datetime.datetime = NOW + 100 * DAY,
    ca: bool = False,
    number: str | None = None,
) -> Keys:
    """Return new keys; their certificate bears the name with a number of its own, or with the given one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
            x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, number or uuid.uuid4().hex),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("edgenas-agent")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Keys(
        key=key.private_bytes(encoding, form, serialization.NoEncryption()),
        pem=certificate.public_bytes(encoding),
        expires_at=certificate.not_valid_after_utc,
    )


def channel_to(address: str, state_dir: Path, keys: Keys | None) -> grpc.Channel:
    """Return a channel to the agent of a state directory, with these keys or without a certificate."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=IdentityFolder(state_dir).current().certificate,
        private_key=keys.key if keys else None,
        certificate_chain=keys.pem if keys else None,
    )
    return grpc.secure_channel(
        address, credentials, options=(("grpc.ssl_target_name_override", "edgenas-agent"),)
    )


def let_in(state_dir: Path, name: str, role: Role, keys: Keys) -> None:
    """Have an agent know a client, as a pairing does."""
    state_dir.mkdir(parents=True, exist_ok=True)
    ClientStore(state_dir).add(name, role, keys.certificate, NOW)


@contextlib.contextmanager
def paired_agent(
    state_dir: Path, *options: str, role: Role = Role.MEASURE, certificate_days: int = 100
) -> Iterator[tuple[Agent, Keys]]:
    """Run an agent with TLS that knows one client, `laptop`, and yield it with a channel of that client."""
    keys = new_keys(ends=NOW + certificate_days * DAY)
    let_in(state_dir, "laptop", role, keys)
    with running_agent(
        state_dir, *options, channel_to=lambda address: channel_to(address, state_dir, keys)
    ) as agent:
        yield agent, keys
