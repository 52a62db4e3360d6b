"""Clients look after themselves, and admins after all of them."""

import grpc
from edgenas.v1 import access_pb2, access_pb2_grpc

from device_agent.access.clients import ClientStore
from device_agent.access.issuing import certificate_of
from device_agent.access.roles import Role
from device_agent.errors import ForbiddenError
from device_agent.serving.admission.callers import Callers
from device_agent.serving.admission.guard import answering
from device_agent.serving.wire.access import client_to_wire


class AccessService(access_pb2_grpc.AccessServiceServicer):
    """Who may call the agent."""

    def __init__(self, *, clients: ClientStore, callers: Callers) -> None:
        self._clients = clients
        self._callers = callers

    def ListClients(  # noqa: N802 (generated name)
        self, request: access_pb2.ListClientsRequest, context: grpc.ServicerContext
    ) -> access_pb2.ListClientsResponse:
        """Return everyone who may call."""
        with answering(context):
            return access_pb2.ListClientsResponse(clients=map(client_to_wire, self._clients.clients()))

    def RevokeClient(  # noqa: N802 (generated name)
        self, request: access_pb2.RevokeClientRequest, context: grpc.ServicerContext
    ) -> access_pb2.RevokeClientResponse:
        """Take a client's access away."""
        with answering(context):
            caller = self._callers.of(context)
            if request.name not in ("", caller.name) and caller.role < Role.ADMIN:
                raise ForbiddenError(
                    f"'{caller.name}' has the role {caller.role.label}, and only an admin revokes others; "
                    "pair it again with `edgenas-agent pair --role admin` on the board"
                )
            self._clients.revoke(request.name or caller.name)
            return access_pb2.RevokeClientResponse()

    def RenewCertificate(  # noqa: N802 (generated name)
        self, request: access_pb2.RenewCertificateRequest, context: grpc.ServicerContext
    ) -> access_pb2.RenewCertificateResponse:
        """Replace the caller's certificate, once it uses the new one."""
        with answering(context):
            caller = self._callers.of(context)
            signed = f"edgenas renew {caller.fingerprint}".encode("ascii")
            certificate = certificate_of(request.certificate, request.signature, signed)
            self._clients.renew(caller.name, certificate)
            return access_pb2.RenewCertificateResponse()
