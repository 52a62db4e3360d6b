"""Tells systemd how the agent is, so that a start which fails is a failed start.

    $ NOTIFY_SOCKET=/run/systemd/notify         set for a unit of Type=notify; @NAME is an abstract socket

Source: sd_notify(3), "Notes", which describes the protocol for those who do without its library.
"""

import os
import socket

VARIABLE = "NOTIFY_SOCKET"


def tell_systemd(state: str) -> None:
    """Send a state such as READY=1; without effect where it was not systemd that started the agent."""
    name = os.environ.get(VARIABLE, "")
    if not name:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(state.encode("ascii"), "\0" + name[1:] if name.startswith("@") else name)
