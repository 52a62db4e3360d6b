"""Becoming known to an agent: its code, shown on the board, makes both sides sure of each other's certificate.

SPAKE2 turns the code and both fingerprints into a key that is the same on both sides only if all of these are. Who
stands between has another certificate, so another key, and each guess at the code takes one of five tries.
Source: Abdalla and Pointcheval 2005, "Simple Password-Based Encrypted Key Exchange Protocols"; RFC 9382.
"""

import hmac
import platform
import queue
import socket
import ssl
from collections.abc import Iterator

import grpc
from edgenas.v1 import access_pb2, access_pb2_grpc
from spake2 import SPAKE2_A, SPAKEError

from controller.core.errors import ConfigurationError, DeviceError, DeviceUnreachableError
from controller.devices.address import host_and_port
from controller.devices.credentials import SERVER_NAME, Credentials, fingerprint, new_credentials
from controller.devices.versions import PROTOCOL_VERSION

CODE_DIGITS = 8
_CLIENT_PROOF, _AGENT_PROOF = b"edgenas client", b"edgenas agent"
_CONNECT_LIMIT_S = 20.0
# The board has a process of its own look at this host's certificate: its libraries come from an SD card, which takes
# some boards half a minute.
_EXCHANGE_LIMIT_S = 60.0


class PairingPort:
    """An agent's pairing port, which is open while the board shows a code.

    Args:
        address: `HOST:PORT` of it.

    Raises:
        DeviceUnreachableError: If it is not open.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            # Nobody vouches for this certificate yet: that is what the code is for.
            self._agent_pem = ssl.get_server_certificate(host_and_port(address), timeout=_CONNECT_LIMIT_S)
        except socket.gaierror as error:
            raise DeviceUnreachableError(
                f"there is no host {address.rpartition(':')[0]!r} ({error.strerror}); check the name, or give the address that "
                "`edgenas devices discover` or the board itself shows"
            ) from error
        except OSError as error:
            raise DeviceUnreachableError(
                f"nobody waits to be paired at {address} ({error.strerror or error}); run `edgenas-agent pair` on the "
                "board, as the agent's user, and type the code that it shows"
            ) from error

    def pair(self, code: str) -> tuple[Credentials, str]:
        """Return what the two know each other by from now on, and the role that the agent gave.

        Args:
            code: As the board shows it, with or without the hyphen.

        Raises:
            ConfigurationError: If the code is none.
            DeviceError: If the agent refuses, or somebody stands between.
        """
        digits = "".join(letter for letter in code if letter not in " -")
        if not (digits.isascii() and digits.isdecimal() and len(digits) == CODE_DIGITS):
            raise ConfigurationError(
                f"code {code!r} is none; expected the {CODE_DIGITS} digits that `edgenas-agent pair` shows on the board"
            )
        mine = new_credentials(platform.node())
        agent_der = ssl.PEM_cert_to_DER_cert(self._agent_pem)
        side = SPAKE2_A(
            digits.encode("ascii"), mine.fingerprint.encode("ascii"), fingerprint(agent_der).encode("ascii")
        )
        begin = access_pb2.PairBegin(
            protocol_version=PROTOCOL_VERSION,
            message=side.start(),
            certificate=mine.der,
            client_name=platform.node(),
        )
        channel = grpc.secure_channel(
            self._address,
            grpc.ssl_channel_credentials(root_certificates=self._agent_pem.encode("ascii")),
            options=(("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.enable_http_proxy", 0)),
        )
        with channel:
            accepted = self._exchanged(channel, begin, side)
        roles = {value: name.removeprefix("ROLE_").lower() for name, value in access_pb2.Role.items()}
        return mine.taking(agent_der), roles.get(accepted.role, f"number {accepted.role}")

    def _exchanged(
        self, channel: grpc.Channel, begin: access_pb2.PairBegin, side: SPAKE2_A
    ) -> access_pb2.PairAccepted:
        """Go through the four messages and return the last."""
        outgoing: queue.SimpleQueue[access_pb2.PairRequest | None] = queue.SimpleQueue()

        def requests() -> Iterator[access_pb2.PairRequest]:
            while (request := outgoing.get()) is not None:
                yield request

        answers = access_pb2_grpc.PairingServiceStub(channel).Pair(requests(), timeout=_EXCHANGE_LIMIT_S)
        try:
            outgoing.put(access_pb2.PairRequest(begin=begin))
            key = side.finish(next(answers).challenge.message)
            proof = hmac.digest(key, _CLIENT_PROOF, "sha256")
            outgoing.put(access_pb2.PairRequest(proof=access_pb2.PairProof(proof=proof)))
            accepted = next(answers).accepted
        except grpc.RpcError as error:
            raise DeviceError(f"the agent at {self._address} did not pair: {error.details()}") from error
        except (StopIteration, SPAKEError, ValueError, AssertionError, IndexError, TypeError) as error:
            raise self._not_the_agent() from error
        finally:
            outgoing.put(None)
        # Without this, whoever answers there would be taken for the board.
        if not hmac.compare_digest(hmac.digest(key, _AGENT_PROOF, "sha256"), accepted.proof):
            raise self._not_the_agent()
        return accepted

    def _not_the_agent(self) -> DeviceError:
        return DeviceError(
            f"whoever answers at {self._address} does not know the code: somebody may stand between this host and the "
            "board; nothing was kept; check the address and the network, and show a new code"
        )
