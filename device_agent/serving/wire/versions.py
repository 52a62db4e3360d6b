"""Which versions of the wire format this agent speaks."""

PROTOCOL_VERSION = 1
OLDEST_PROTOCOL_VERSION = 1
