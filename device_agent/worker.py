"""Measures one ONNX model in a process of its own, then exits.

The agent starts this file with the Python of its choice. It is self-contained and in Python 3.6 syntax, so
that the Python may be the system's own on an old board whose vendor supports its runtime on nothing newer.

It speaks JSON, an object a line:

    out  {"event": "ready", "library": "onnxruntime", "version": "1.23.0", "providers": [...]}
         or {"event": "unavailable", "message": ...} where the runtime cannot be imported
    in   {"model_path": ..., "threads": 4, "input_shapes": {"x": [1, 3, 32, 32]}, "seed": 0, "mode": "search"}
    out  {"event": "phase", "phase": "load" | "warm_up" | "measure"}
    out  {"event": "result", ...} or {"event": "failed", "kind": "invalid_model" | "invalid_spec", "message": ...}

Started ahead of a job it waits for its line with the runtime imported. It exits when its input ends, so a
killed agent leaves no worker behind.
"""

import array
import errno
import functools
import gc
import json
import math
import os
import sys
import threading
import time
from typing import (
    Any,
    Callable,
    Dict,
    List,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    TextIO,
    Tuple,
    Type,
    cast,
)

BLOCKS = 16
# Two-sided 95 % quantile of Student's t with BLOCKS - 1 = 15 degrees of freedom.
T_QUANTILE = 2.131

WARMUP_WINDOW = 20
WARMUP_CHECK_EVERY = 5
WARMUP_MIN_RUNS = 10
WARMUP_ALWAYS_RUNS = 3
WARMUP_CAP_RUNS = 300
WARMUP_CAP_S = 15.0

MEASURE_MIN_SAMPLES = 64
MEASURE_CHECK_EVERY = 32
MEASURE_CAP_SAMPLES = 5000
MEASURE_CAP_S = 60.0
# The range of 6 samples holds the median in 1 - 2 * 0.5**6 = 97 % of cases; of 5, in less than 95 %.
MEASURE_ALWAYS_SAMPLES = 6

# A phase is announced over the network while the next instructions already run; this long is waited (or
# spent on further warm-up) until nothing of it is left to share a window with what is timed.
ANNOUNCEMENT_S = 0.05

NUMPY_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}


class Rules(NamedTuple):
    """What a measurement mode asks for; `half_width` is a share of the median."""

    warmup_min_s: float
    measure_min_s: float
    half_width: float


RULES = {
    "search": Rules(warmup_min_s=0.3, measure_min_s=1.0, half_width=0.02),
    "full": Rules(warmup_min_s=1.0, measure_min_s=3.0, half_width=0.01),
}


class JobError(Exception):
    """The job cannot be measured; `kind` is invalid_model or invalid_spec."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def clock_ns() -> int:
    """Return monotonic time in nanoseconds where `time.perf_counter_ns` does not exist (Python 3.6)."""
    return int(time.perf_counter() * 1e9)


perf_counter_ns: Callable[[], int] = getattr(time, "perf_counter_ns", clock_ns)


def quantile(samples: Sequence[float], share: float) -> float:
    """Return a quantile by linear interpolation between order statistics; `share` is 0 to 1."""
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    weight = place - below
    # Equal neighbours are returned as they are: interpolating would lose their last bit.
    if weight == 0 or ordered[below] == ordered[above]:
        return ordered[below]
    return ordered[below] * (1 - weight) + ordered[above] * weight


def median(samples: Sequence[float]) -> float:
    """Return the median, half-way between the two middle samples of an even number."""
    return quantile(samples, 0.5)


def median_interval(samples: Sequence[float]) -> Tuple[float, float]:
    """Return a 95 % interval of the median of a series that may be autocorrelated.

    The series is split into 16 contiguous blocks; a t-interval on the block medians gives the half-width,
    which is laid around the median of all samples. With fewer than 16 samples it is their range.
    """
    if len(samples) < BLOCKS:
        return min(samples), max(samples)
    edges = [index * len(samples) // BLOCKS for index in range(BLOCKS + 1)]
    medians = [median(samples[start:end]) for start, end in zip(edges, edges[1:])]
    mean = math.fsum(medians) / BLOCKS
    variance = math.fsum((value - mean) ** 2 for value in medians) / (BLOCKS - 1)
    half_width = T_QUANTILE * math.sqrt(variance / BLOCKS)
    middle = median(samples)
    return middle - half_width, middle + half_width


def relative_half_width(samples: Sequence[float]) -> float:
    """Return half the median's interval as a share of the median; infinite below 16 samples."""
    if len(samples) < BLOCKS:
        return math.inf
    low, high = median_interval(samples)
    return (high - low) / 2 / median(samples)


def within(first: float, second: float, share: float) -> bool:
    """Tell whether two figures differ by at most a share of the larger."""
    return abs(first - second) <= share * max(abs(first), abs(second))


def windows_agree(latencies: Sequence[float]) -> bool:
    """Tell whether the last two windows of 20 agree.

    Medians may differ by 2 %, quartiles by 5 %, and MADs by 10 % of the median. Not by 10 % of each other:
    the MAD of 20 samples scatters so much that settled series passed such a check in 13 to 19 % of windows
    only, against 97 to 100 % as it is (convolutions of 0.06 to 6 ms, 1 and 2 threads, 3 s each, AMD EPYC).
    """
    if len(latencies) < 2 * WARMUP_WINDOW:
        return False
    previous = latencies[-2 * WARMUP_WINDOW : -WARMUP_WINDOW]
    last = latencies[-WARMUP_WINDOW:]
    return (
        within(median(previous), median(last), 0.02)
        and within(quantile(previous, 0.25), quantile(last, 0.25), 0.05)
        and within(quantile(previous, 0.75), quantile(last, 0.75), 0.05)
        and abs(deviation(previous) - deviation(last)) <= 0.10 * median(last)
    )


def deviation(samples: Sequence[float]) -> float:
    """Return the median absolute deviation from the median."""
    middle = median(samples)
    return median([abs(sample - middle) for sample in samples])


class WarmUp:
    """Decides when warm-up is over; `capped` tells that it ended before the latencies settled."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.capped = False

    def over(self, latencies: Sequence[int], elapsed_s: float) -> bool:
        """Tell whether to stop after these latencies, taken within `elapsed_s` seconds."""
        runs = len(latencies)
        late = elapsed_s >= WARMUP_CAP_S and runs >= WARMUP_ALWAYS_RUNS
        # The time floor wins over the cap on runs: 300 runs of a small model end before the clock has risen.
        early = runs < WARMUP_MIN_RUNS or elapsed_s < self.rules.warmup_min_s
        if early and not late:
            return False
        at_cap = late or runs >= WARMUP_CAP_RUNS
        if not at_cap and runs % WARMUP_CHECK_EVERY:
            return False
        settled = windows_agree(latencies)
        self.capped = at_cap and not settled
        return at_cap or settled


class Sampling:
    """Decides when enough is measured; `reached` tells that the interval is as narrow as asked."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.reached = False

    def over(self, samples: Sequence[int], elapsed_s: float) -> bool:
        """Tell whether to stop after these samples, taken within `elapsed_s` seconds."""
        count = len(samples)
        if count >= MEASURE_CAP_SAMPLES or (elapsed_s >= MEASURE_CAP_S and count >= MEASURE_ALWAYS_SAMPLES):
            self.reached = relative_half_width(samples) <= self.rules.half_width
            return True
        if count < MEASURE_MIN_SAMPLES or count % MEASURE_CHECK_EVERY or elapsed_s < self.rules.measure_min_s:
            return False
        # Twice in a row: one narrow interval among many looks may be luck.
        narrow_before = self.reached
        self.reached = relative_half_width(samples) <= self.rules.half_width
        return narrow_before and self.reached


def timed_runs(run: Callable[[], object], over: Callable[[Sequence[int], float], bool]) -> "array.array[int]":
    """Call `run` until `over` is true of the latencies so far and the seconds gone; return nanoseconds."""
    # An array, not a list: a list of a fast model's runs would show up in the memory figures.
    latencies = array.array("q")
    begin = perf_counter_ns()
    while True:
        start = perf_counter_ns()
        run()
        end = perf_counter_ns()
        latencies.append(end - start)
        if over(latencies, (end - begin) / 1e9):
            return latencies


def resolve_shape(name: str, declared: Sequence[Any], given: Optional[Sequence[int]]) -> List[int]:
    """Return the shape to run an input with.

    Only an open first axis, the batch, has a default: 1. Any other size would be a guess.

    Args:
        name: The input's name.
        declared: The model's sizes; an open axis is None or a name.
        given: The sizes that the spec gives, if any.

    Raises:
        JobError: invalid_spec, where an axis stays open or the given sizes contradict the model.
    """
    if given is None:
        sizes = [1 if axis == 0 and not isinstance(size, int) else size for axis, size in enumerate(declared)]
        if not all(isinstance(size, int) for size in sizes):
            raise JobError(
                "invalid_spec",
                "input '{}' has open axes in {}; give its full shape in input_shapes, "
                "e.g. {}=1,3,224,224".format(name, shape_text(declared), name),
            )
        return sizes
    fits = len(given) == len(declared) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(declared, given)
    )
    # A model may leave even the rank open, which the runtime shows as no axes at all.
    if declared and not fits:
        raise JobError(
            "invalid_spec",
            "input_shapes gives '{}' the shape {}; the model declares {}; change only open axes".format(
                name, shape_text(given), shape_text(declared)
            ),
        )
    return list(given)


def shape_text(shape: Sequence[Any]) -> str:
    """Return a shape for a person, with ? for an axis that has neither size nor name."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def resolve_shapes(inputs: Sequence[Any], given: Dict[str, List[int]]) -> Dict[str, List[int]]:
    """Return the shape of every input of the session.

    Raises:
        JobError: invalid_spec, where a given name is no input or a shape cannot be resolved.
    """
    names = [entry.name for entry in inputs]
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise JobError(
            "invalid_spec",
            "input_shapes names '{}', which the model lacks; its inputs are {}".format(
                "', '".join(unknown), ", ".join(names) or "none"
            ),
        )
    return {entry.name: resolve_shape(entry.name, entry.shape, given.get(entry.name)) for entry in inputs}


def random_inputs(inputs: Sequence[Any], shapes: Dict[str, List[int]], seed: int) -> Dict[str, Any]:
    """Return random arrays by input name.

    Floats are standard normal. Integers are 0 or 1, valid as an index into any table a model may hold.

    Raises:
        JobError: invalid_model, where an input's type has no random data.
    """
    import numpy

    random = numpy.random.RandomState(seed)
    arrays = {}  # type: Dict[str, Any]
    for entry in inputs:
        if entry.type not in NUMPY_TYPES:
            raise JobError(
                "invalid_model",
                "input '{}' is a {}; random data can be made for {}".format(
                    entry.name, entry.type, ", ".join(sorted(NUMPY_TYPES))
                ),
            )
        dtype = numpy.dtype(NUMPY_TYPES[entry.type])
        if dtype.kind == "f":
            arrays[entry.name] = numpy.asarray(random.standard_normal(shapes[entry.name])).astype(dtype)
        else:
            arrays[entry.name] = numpy.asarray(random.randint(0, 2, size=shapes[entry.name])).astype(dtype)
    return arrays


def runtime_errors() -> Tuple[Type[Exception], ...]:
    """Return the runtime's exception types: it raises about a dozen that share no base."""
    from onnxruntime.capi import onnxruntime_pybind11_state

    own = [value for value in vars(onnxruntime_pybind11_state).values() if isinstance(value, type)]
    return tuple(kind for kind in own if issubclass(kind, Exception)) + (RuntimeError, ValueError)


def one_line(error: BaseException) -> str:
    """Return an error's text without line breaks, short enough to show."""
    return " ".join(str(error).split())[:500] or type(error).__name__


def open_session(model_path: str, threads: int) -> Any:
    """Return a session on the CPU with its number of threads fixed.

    Raises:
        JobError: invalid_model, where the runtime cannot load the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    try:
        return onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
    except runtime_errors() as error:
        raise JobError("invalid_model", "onnxruntime cannot load the model: " + one_line(error)) from error


def bind(session: Any, arrays: Dict[str, Any]) -> Any:
    """Return a binding that holds every input and output, so that a run copies and allocates nothing more."""
    binding = session.io_binding()
    for name, values in arrays.items():
        binding.bind_cpu_input(name, values)
    for entry in session.get_outputs():
        binding.bind_output(entry.name)
    return binding


def status_kib(path: str, field: str) -> Optional[int]:
    """Return a kibibyte figure of a /proc file, or None where the file or the field does not exist."""
    try:
        with open(path) as lines:
            for line in lines:
                if line.startswith(field + ":"):
                    return int(line.split()[1])
    except (IOError, OSError) as error:
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM):
            raise
    return None


class Memory:
    """Follows the high-water mark of this process's resident memory."""

    def __init__(self) -> None:
        self.method = "VmHWM"
        self.marks = []  # type: List[int]
        if status_kib("/proc/self/status", "VmHWM") is None:
            self.method = "ru_maxrss"
            return
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except (IOError, OSError) as error:
            self.method = "VmHWM (not reset before the model: {})".format(error.strerror)

    def mark(self) -> None:
        """Note the high-water mark, in bytes, as it is now."""
        kib = status_kib("/proc/self/status", "VmHWM")
        if kib is not None:
            self.marks.append(kib * 1024)
            return
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        self.marks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)

    def report(self) -> Dict[str, Any]:
        """Return the four marks in order, the proportional set size now, and the method."""
        pss = status_kib("/proc/self/smaps_rollup", "Pss")
        return {"marks": self.marks, "pss": None if pss is None else pss * 1024, "method": self.method}


def measure(job: Dict[str, Any], announce: Callable[[str], None]) -> Dict[str, Any]:
    """Measure the job's model and return the fields of the result event, times in nanoseconds.

    Raises:
        JobError: If the model or the spec cannot be measured.
    """
    rules = RULES[job["mode"]]
    announce("load")
    time.sleep(ANNOUNCEMENT_S)
    memory = Memory()
    memory.mark()
    start = perf_counter_ns()
    session = open_session(job["model_path"], job["threads"])
    load_ns = perf_counter_ns() - start
    memory.mark()
    shapes = resolve_shapes(session.get_inputs(), job["input_shapes"])
    try:
        arrays = random_inputs(session.get_inputs(), shapes, job["seed"])
    except (MemoryError, OverflowError, ValueError) as error:
        raise JobError(
            "invalid_spec", "cannot make the inputs: {}; give smaller shapes".format(one_line(error))
        ) from error
    try:
        run = functools.partial(session.run_with_iobinding, bind(session, arrays))
        first_ns = timed_runs(run, lambda latencies, elapsed_s: True)[0]
        memory.mark()
        announce("warm_up")
        warmup, samples, warm, sampling = run_series(run, rules, announce)
    except runtime_errors() as error:
        raise JobError("invalid_model", "onnxruntime cannot run the model: " + one_line(error)) from error
    memory.mark()
    return {
        "load_ns": load_ns,
        "first_inference_ns": first_ns,
        "warmup_ns": list(warmup),
        "samples_ns": list(samples),
        "warmup_capped": warm.capped,
        "interval_reached": sampling.reached,
        "memory": memory.report(),
        "input_shapes": shapes,
        "provider": session.get_providers()[0],
    }


def run_series(
    run: Callable[[], object], rules: Rules, announce: Callable[[str], None]
) -> Tuple["array.array[int]", "array.array[int]", WarmUp, Sampling]:
    """Warm up and measure; return both series in nanoseconds and how each ended."""
    warm, sampling = WarmUp(rules), Sampling(rules)
    gc.collect()
    gc.disable()
    try:
        warmup = timed_runs(run, warm.over)
        announce("measure")
        warmup += timed_runs(run, lambda latencies, elapsed_s: elapsed_s >= ANNOUNCEMENT_S)
        samples = timed_runs(run, sampling.over)
    finally:
        gc.enable()
    return warmup, samples, warm, sampling


def claim_stdout() -> TextIO:
    """Keep standard output for the protocol: whatever the runtime prints goes to standard error instead."""
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return protocol


def read_job() -> Optional[Dict[str, Any]]:
    """Return the job, or None where the input ended first."""
    line = b""
    while not line.endswith(b"\n"):
        # Unbuffered: a reader that holds a buffer's lock while the interpreter ends would abort it.
        piece = os.read(0, 65536)
        if not piece:
            return None
        line += piece
    return cast(Dict[str, Any], json.loads(line.decode("utf-8")))


def exit_with_the_agent() -> NoReturn:
    """Wait for the input to end, then end the process, whatever the runtime is doing."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def main() -> None:
    """Serve one job."""
    # This file's folder is the agent's package: none of its files may shadow what the runtime imports.
    own_folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != own_folder]
    # A pool of BLAS threads for drawing random numbers would only blur the memory figures.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    protocol = claim_stdout()

    def emit(event: str, **fields: Any) -> None:
        protocol.write(json.dumps(dict(fields, event=event)) + "\n")
        protocol.flush()

    try:
        import numpy  # noqa: F401
        import onnxruntime
    except ImportError as error:
        emit("unavailable", message=one_line(error))
        return
    emit(
        "ready",
        library="onnxruntime",
        version=onnxruntime.__version__,
        providers=onnxruntime.get_available_providers(),
    )
    job = read_job()
    if job is None:
        return
    threading.Thread(target=exit_with_the_agent, daemon=True).start()
    try:
        result = measure(job, lambda phase: emit("phase", phase=phase))
    except JobError as error:
        emit("failed", kind=error.kind, message=str(error))
    else:
        emit("result", **result)


if __name__ == "__main__":
    main()
