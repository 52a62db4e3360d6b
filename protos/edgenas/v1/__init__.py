"""Version 1 of the wire format, generated from the .proto files in this folder."""
