"""Self-signed certificates: made, and understood where a stranger sends one.

There is no authority that signs anything. Each side keeps the very certificates of those it was paired with, so that a
certificate is no more than a public key with a date on which it must have been replaced. `cryptography` takes 10 MB once
it is imported, which an agent that waits does without: it runs this file as a program (see `issuing.py`).

    python -m device_agent.access.certificates make NAME      prints a new identity
    python -m device_agent.access.certificates understand     prints what is in a stranger's certificate; it reads a list of
                                                              `understood`'s arguments in hexadecimal
"""

import json
import sys
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# Callers ask for this name whatever the board's address is: they know the certificate, not where it is served.
SERVER_NAME = "edgenas-agent"
VALID_FOR = timedelta(days=730)
# A board without a clock of its own wakes up in 1970, and its certificate must be good then.
VALID_FROM = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Nor is the date earlier than that of this code, whatever such a board's clock says.
NOT_BEFORE_CODE = datetime(2026, 11, 1, tzinfo=timezone.utc)
# A stranger's may be good for somewhat longer: clocks differ.
LONGEST_FOR = VALID_FOR + timedelta(days=30)


def made(name: str) -> dict[str, object]:
    """Return a new private key, its certificate and when that expires."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key, name)
    private_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "private_key": private_key.decode("ascii"),
        "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        "expires_at": certificate.not_valid_after_utc.timestamp(),
    }


def _certificate(key: ec.EllipticCurvePrivateKey, name: str) -> x509.Certificate:
    # Names that are unique let TLS find the one certificate that a caller shows among all that it trusts.
    serial = x509.random_serial_number()
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64]),
            x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, f"{serial:x}"),
        ]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(VALID_FROM)
        .not_valid_after(max(datetime.now(timezone.utc), NOT_BEFORE_CODE) + VALID_FOR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        # It signs nothing else: who trusts it trusts nobody more.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def understood(der: bytes, signature: bytes, signed: bytes) -> dict[str, object]:
    """Return a stranger's certificate in PEM, whose it says it is, and when it expires.

    Args:
        der: The certificate.
        signature: By its key; empty where the stranger proves otherwise that it has it.
        signed: What the signature is of.

    Raises:
        ValueError: If it is none that TLS could use here, or not the stranger's own: the text says why.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(certificate)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise ValueError(f"it is no self-signed X.509 certificate: {error}") from error
    # One that may sign others would let in everybody that it signs.
    if constraints.ca:
        raise ValueError("it may sign other certificates")
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("its key is not of an elliptic curve")
    now = max(datetime.now(timezone.utc), NOT_BEFORE_CODE)
    if not now < certificate.not_valid_after_utc < now + LONGEST_FOR:
        raise ValueError(
            f"it ends on {certificate.not_valid_after_utc:%Y-%m-%d}, and within {LONGEST_FOR.days} days from now is expected"
        )
    if signature or signed:
        try:
            key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise ValueError("its owner has not signed for it") from error
    # Bytes behind it would give it a second fingerprint.
    if certificate.public_bytes(serialization.Encoding.DER) != der:
        raise ValueError("something follows it")
    return {
        "pem": certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        "subject": certificate.subject.rfc4514_string(),
        "expires_at": certificate.not_valid_after_utc.timestamp(),
    }


def json_bytes(text: str) -> list[bytes]:
    """Return bytes from a list of hexadecimal texts."""
    return [bytes.fromhex(entry) for entry in json.loads(text)]


def main(command: str, *names: str) -> None:
    """Do what one of the commands says."""
    try:
        found = made(*names) if command == "make" else understood(*json_bytes(sys.stdin.read()))
    except ValueError as error:
        found = {"refused": str(error)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
