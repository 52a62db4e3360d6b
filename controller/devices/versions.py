"""Which versions of the wire format this host speaks."""

PROTOCOL_VERSION = 1
OLDEST_PROTOCOL_VERSION = 1
