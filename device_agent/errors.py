"""Everything that the agent raises on purpose.

AgentError
├── StartupError                 the agent cannot start or read its state; exit code 2 at the command line
├── WorkerDiedError              a worker process ended before it answered
├── WorkerSilentError            a worker process did not answer in time
├── WorkerGarbledError           a worker process wrote something else than an answer
├── SensorError                  a power source cannot be read
├── BenchmarkFailedError         one job ended without a measurement; becomes a failure event
│   └── WorkerLostError          its worker had died before it took the job: another may measure it
└── CallError                    one call cannot be answered; `wire.tables.STATUS_OF` gives its gRPC status
    ├── UnauthenticatedError     the caller is nobody that the agent was paired with
    ├── ForbiddenError           the caller's role does not allow the call
    ├── ClientNotFoundError      no client of this name
    ├── PairingLockedError       the pairing code is used, tried too often or too old
    ├── WireVersionError         the caller speaks no version of the wire format that the agent speaks
    ├── InvalidRequestError      a field of the request is not acceptable
    ├── ModelMismatchError       uploaded bytes are not what their header announced
    ├── ModelNotFoundError       no such model in the cache
    ├── BenchmarkNotFoundError   no such job or record
    ├── RequestConflictError     a request id was used for something else
    ├── StorageFullError         a model exceeds a limit, the cache or the disk
    ├── QueueFullError           too many jobs wait already
    ├── TooManyStreamsError      every slot for long-lived streams is taken
    ├── BusyError                the agent does one of these at a time
    ├── RuntimeUnavailableError  no worker with its runtime imported can be had
    ├── RuntimeStartingError     the first worker is still importing the runtime
    ├── AgentStoppingError       the agent is shutting down
    ├── ModelCacheError          the model cache cannot be read or written
    ├── JournalError             the journal of accepted jobs cannot be read or written
    ├── AccessError              the list of clients cannot be read or written
    ├── HistoryError             the history database cannot be read or written
    └── JobCrashedError          a defect of the agent ended the job
"""

from device_agent.benchmark import FailureReason
from device_agent.text import one_line

# gRPC carries a status in a header, and headers are small.
MESSAGE_LIMIT = 2000


class AgentError(Exception):
    """Root of the agent's exceptions. The text is one printable line for a person, whatever it quotes."""

    def __str__(self) -> str:
        return one_line(super().__str__(), MESSAGE_LIMIT)


class StartupError(AgentError):
    """The agent cannot start, or its state directory cannot be used."""


class WorkerDiedError(AgentError):
    """A worker process ended before it answered; the text says how."""


class WorkerSilentError(AgentError):
    """A worker process did not answer in time."""


class WorkerGarbledError(AgentError):
    """A worker process wrote something else than an answer; the text shows it."""


class SensorError(AgentError):
    """A power source cannot be read; the text says which, why and what to do."""


class BenchmarkFailedError(AgentError):
    """A job ended without a measurement."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WorkerLostError(BenchmarkFailedError):
    """The worker had died before it took the job, so that another may measure it."""


class CallError(AgentError):
    """A call that cannot be answered."""


class UnauthenticatedError(CallError):
    """The caller is nobody that the agent was paired with."""


class ForbiddenError(CallError):
    """The caller's role does not allow the call."""


class ClientNotFoundError(CallError):
    """There is no client of this name."""


class PairingLockedError(CallError):
    """The pairing code was used, tried too often, or shown too long ago."""


class WireVersionError(CallError):
    """The caller speaks no version of the wire format that the agent speaks."""


class InvalidRequestError(CallError):
    """A field of the request is not acceptable."""


class ModelMismatchError(CallError):
    """The uploaded bytes are not what their header announced."""


class ModelNotFoundError(CallError):
    """The cache holds no such model."""


class BenchmarkNotFoundError(CallError):
    """There is no such job or record."""


class RequestConflictError(CallError):
    """A request id was used before, with another model or spec."""


class StorageFullError(CallError):
    """A model exceeds a limit, the cache or the disk."""


class QueueFullError(CallError):
    """Too many jobs wait already."""


class TooManyStreamsError(CallError):
    """Every slot for long-lived streams is taken."""


class BusyError(CallError):
    """The agent does one of these at a time."""


class RuntimeUnavailableError(CallError):
    """No worker with its runtime imported can be had; the text says why."""


class RuntimeStartingError(CallError):
    """The first worker is still importing the runtime."""


class AgentStoppingError(CallError):
    """The agent is shutting down."""


class ModelCacheError(CallError):
    """The model cache cannot be read or written."""


class JournalError(CallError):
    """The journal of accepted jobs cannot be read or written."""


class AccessError(CallError):
    """The list of clients cannot be read or written."""


class HistoryError(CallError):
    """The history database cannot be read or written."""


class JobCrashedError(CallError):
    """A defect of the agent ended the job."""
