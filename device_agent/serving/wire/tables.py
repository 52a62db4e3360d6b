"""How closed sets of the agent appear on the wire: error statuses and enums."""

from collections.abc import Mapping

import grpc
from edgenas.v1 import access_pb2, benchmark_pb2, measurement_pb2, model_pb2

from device_agent import errors
from device_agent.access.roles import Role
from device_agent.benchmark import (
    FailureReason,
    Flag,
    InputData,
    MeasurementMode,
    ModelFormat,
    Phase,
    Precision,
)

STATUS_OF: Mapping[type[errors.CallError], grpc.StatusCode] = {
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    errors.ClientNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.PairingLockedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.WireVersionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelMismatchError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.BenchmarkNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.RequestConflictError: grpc.StatusCode.ALREADY_EXISTS,
    errors.StorageFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QueueFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyStreamsError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RuntimeUnavailableError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RuntimeStartingError: grpc.StatusCode.UNAVAILABLE,
    errors.AgentStoppingError: grpc.StatusCode.UNAVAILABLE,
    errors.ModelCacheError: grpc.StatusCode.INTERNAL,
    errors.JournalError: grpc.StatusCode.INTERNAL,
    errors.AccessError: grpc.StatusCode.INTERNAL,
    errors.HistoryError: grpc.StatusCode.INTERNAL,
    errors.JobCrashedError: grpc.StatusCode.INTERNAL,
}

MODES = {
    benchmark_pb2.MEASUREMENT_MODE_SEARCH: MeasurementMode.SEARCH,
    benchmark_pb2.MEASUREMENT_MODE_FULL: MeasurementMode.FULL,
}
MODES_TO_WIRE = {mode: number for number, mode in MODES.items()}
FORMATS = {
    model_pb2.MODEL_FORMAT_ONNX: ModelFormat.ONNX,
    model_pb2.MODEL_FORMAT_TORCHSCRIPT: ModelFormat.TORCHSCRIPT,
}
FORMATS_TO_WIRE = {model_format: number for number, model_format in FORMATS.items()}
PRECISIONS = {
    benchmark_pb2.PRECISION_FLOAT32: Precision.FLOAT32,
    benchmark_pb2.PRECISION_FLOAT16: Precision.FLOAT16,
    benchmark_pb2.PRECISION_INT8_QDQ: Precision.INT8_QDQ,
}
PRECISIONS_TO_WIRE = {precision: number for number, precision in PRECISIONS.items()}
INPUT_DATA = {
    benchmark_pb2.INPUT_DATA_RANDOM: InputData.RANDOM,
    benchmark_pb2.INPUT_DATA_ZEROS: InputData.ZEROS,
}
INPUT_DATA_TO_WIRE = {data: number for number, data in INPUT_DATA.items()}
PHASES_TO_WIRE = {
    Phase.GATE: benchmark_pb2.BENCHMARK_PHASE_GATE,
    Phase.CANARY: benchmark_pb2.BENCHMARK_PHASE_CANARY,
    Phase.LOAD: benchmark_pb2.BENCHMARK_PHASE_LOAD,
    Phase.WARM_UP: benchmark_pb2.BENCHMARK_PHASE_WARM_UP,
    Phase.MEASURE: benchmark_pb2.BENCHMARK_PHASE_MEASURE,
    Phase.ENERGY: benchmark_pb2.BENCHMARK_PHASE_ENERGY,
    Phase.PROFILE: benchmark_pb2.BENCHMARK_PHASE_PROFILE,
}
REASONS_TO_WIRE = {
    reason: benchmark_pb2.FailureReason.Value(f"FAILURE_REASON_{reason.name}") for reason in FailureReason
}
FLAGS_TO_WIRE = {
    flag: measurement_pb2.MeasurementFlag.Value(f"MEASUREMENT_FLAG_{flag.name}") for flag in Flag
}
ROLES_TO_WIRE = {role: access_pb2.Role.Value(f"ROLE_{role.name}") for role in Role}
