"""How closed sets of the agent appear on the wire: error statuses and enums."""

from collections.abc import Mapping

import grpc
from edgenas.v1 import benchmark_pb2, measurement_pb2, model_pb2

from device_agent import errors
from device_agent.benchmark import FailureReason, Flag, MeasurementMode, ModelFormat, Phase

STATUS_OF: Mapping[type[errors.CallError], grpc.StatusCode] = {
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelMismatchError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.BenchmarkNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.RequestConflictError: grpc.StatusCode.ALREADY_EXISTS,
    errors.StorageFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QueueFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyStreamsError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RuntimeUnavailableError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RuntimeStartingError: grpc.StatusCode.UNAVAILABLE,
    errors.AgentStoppingError: grpc.StatusCode.UNAVAILABLE,
    errors.HistoryError: grpc.StatusCode.INTERNAL,
    errors.JobCrashedError: grpc.StatusCode.INTERNAL,
}

MODES = {
    benchmark_pb2.MEASUREMENT_MODE_SEARCH: MeasurementMode.SEARCH,
    benchmark_pb2.MEASUREMENT_MODE_FULL: MeasurementMode.FULL,
}
MODES_TO_WIRE = {mode: number for number, mode in MODES.items()}
FORMATS = {model_pb2.MODEL_FORMAT_ONNX: ModelFormat.ONNX}
FORMATS_TO_WIRE = {model_format: number for number, model_format in FORMATS.items()}
PHASES_TO_WIRE = {
    Phase.LOAD: benchmark_pb2.BENCHMARK_PHASE_LOAD,
    Phase.WARM_UP: benchmark_pb2.BENCHMARK_PHASE_WARM_UP,
    Phase.MEASURE: benchmark_pb2.BENCHMARK_PHASE_MEASURE,
}
REASONS_TO_WIRE = {
    FailureReason.INVALID_MODEL: benchmark_pb2.FAILURE_REASON_INVALID_MODEL,
    FailureReason.INVALID_SPEC: benchmark_pb2.FAILURE_REASON_INVALID_SPEC,
    FailureReason.WORKER_DIED: benchmark_pb2.FAILURE_REASON_WORKER_DIED,
    FailureReason.TIMED_OUT: benchmark_pb2.FAILURE_REASON_TIMED_OUT,
    FailureReason.CANCELLED: benchmark_pb2.FAILURE_REASON_CANCELLED,
}
FLAGS_TO_WIRE = {
    Flag.CI_NOT_REACHED: measurement_pb2.MEASUREMENT_FLAG_CI_NOT_REACHED,
    Flag.WARMUP_CAP: measurement_pb2.MEASUREMENT_FLAG_WARMUP_CAP,
}
