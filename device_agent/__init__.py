"""The agent: a gRPC server on a board that measures models and remembers what it measured."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("edgenas")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
