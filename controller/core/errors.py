"""Everything that EdgeNAS raises on purpose.

EdgeNASError
├── InvalidInputError            the user asked for something that cannot be
│   ├── ConfigurationError       a setting, an objective, a constraint, a config file
│   ├── SpaceError               a search space, or an architecture outside of it
│   ├── DatasetError             a dataset that cannot be found, read or split
│   └── NotFoundError            a run, trial or device that nobody knows
├── NetworkError                 layers whose shapes do not fit
├── ExportError                  an exported model that differs from its module
├── StoreError                   the store cannot be read or written
├── DeviceError
│   ├── DeviceUnreachableError   no answer within the patience given
│   └── BenchmarkFailedError     the board answered that it could not measure
├── WheelhouseError              what a board installs from cannot be gathered
└── SearchStoppedError           the run stopped early, and can be resumed

A message says what failed, the value, what was expected and what to do next, in one line.
"""


class EdgeNASError(Exception):
    """Root of all errors that EdgeNAS raises on purpose."""


class InvalidInputError(EdgeNASError):
    """The user asked for something that cannot be."""


class ConfigurationError(InvalidInputError):
    """A setting, an objective, a constraint or a configuration file is wrong."""


class SpaceError(InvalidInputError):
    """A search space cannot be built, or an architecture lies outside of it."""


class DatasetError(InvalidInputError):
    """A dataset cannot be found, read or split."""


class NotFoundError(InvalidInputError):
    """A run, trial or device that nobody knows."""


class NetworkError(EdgeNASError):
    """The layers of a network do not fit together."""


class ExportError(EdgeNASError):
    """An exported model does not compute what its module computes."""


class StoreError(EdgeNASError):
    """The store cannot be read or written."""


class DeviceError(EdgeNASError):
    """A device could not do what it was asked."""


class DeviceUnreachableError(DeviceError):
    """A device gave no answer within the patience given."""


class BenchmarkFailedError(DeviceError):
    """A device answered that it could not measure a model."""


class WheelhouseError(EdgeNASError):
    """What a board installs from cannot be gathered."""


class SearchStoppedError(EdgeNASError):
    """A run stopped before its budget was spent; it can be resumed."""
