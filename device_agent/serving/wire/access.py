"""Clients and pairing, to and from the wire."""

from datetime import datetime, timezone

from edgenas.v1 import access_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from device_agent.access.clients import Client
from device_agent.serving.wire.tables import ROLES_TO_WIRE


def client_to_wire(client: Client) -> access_pb2.Client:
    """Return a client as it is listed."""
    return access_pb2.Client(
        name=client.name,
        role=ROLES_TO_WIRE[client.role],
        fingerprint=client.certificate.fingerprint,
        paired_at=_timestamp(client.paired_at),
        expires_at=_timestamp(client.certificate.expires_at),
    )


def challenge_to_wire(message: bytes) -> access_pb2.PairResponse:
    """Return the agent's SPAKE2 message."""
    return access_pb2.PairResponse(challenge=access_pb2.PairChallenge(message=message))


def accepted_to_wire(client: Client, proof: bytes) -> access_pb2.PairResponse:
    """Return the end of a pairing."""
    accepted = access_pb2.PairAccepted(proof=proof, role=ROLES_TO_WIRE[client.role], client_name=client.name)
    return access_pb2.PairResponse(accepted=accepted)


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment.astimezone(timezone.utc))
    return stamp
