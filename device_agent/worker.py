"""Measures one model in a process of its own, then exits.

The agent starts this file with the Python of its choice. It is self-contained and in Python 3.6 syntax, so
that the Python may be the system's own on an old board whose vendor supports its runtime on nothing newer.
That is also why it is one long file: a Python 3.6 that imports the agent's package would need its dependencies.

    worker.py NAME FILE HIDDEN...    onnx or torchscript and "", or the name and the file of a runtime that another
                                     package brings; and folders of which no model must see anything but itself
    worker.py "" "" HIDDEN...        without a name it only tells what it runs without, and exits

Before it imports the runtime it gives up the network, all files but to read them, and its privileges; before it
touches the model, most system calls. `sandbox.py` beside this file does that.

It speaks JSON, an object a line, and waits for the agent's word where the agent must look at the board first:

    out  {"event": "ready", "library": "onnxruntime", "version": "1.23.0", "providers": [...], "missing": {...}}
         with the layers of the sandbox that cannot be had here, each with the reason
         or {"event": "unavailable", "message": ...} where the runtime cannot be imported
    in   a job: model_path, threads, cpu_affinity, provider, input_shapes, batch_size, input_data, seed, precision,
         mode, memory_limit_bytes, time_left_s, canary_path, look, measure_limit_s, profile, energy
    out  {"event": "phase", "phase": "canary" | "load" | "warm_up" | "gate" | "measure" | "energy" | "profile",
          "detail": what is waited for, or ""} at any time
    out  {"event": "settled", "canary_ns": ..., "looked_s": ...}     warm, and running on untimed until the agent answers;
                                  with what the reference model takes, and how long that look took, or null without `look`
    in   "again"                  after a pause it tells once more that it is settled
    or   "go" or "go LIMIT_S" or "go LIMIT_S USUAL_NS"     the timed part begins; with a limit it pauses while the reference
                                  model takes longer than usual, or than it did before, all in all no longer than that
    out  {"event": "sampled"}     the timed part is over; running on untimed until the agent answers
    in   "go"
    out  {"event": "measured", ...}     all that was measured so far
    in   "go"                     the passes beside it follow; an agent that wants none ends the worker here
    with energy:
    out  {"event": "idle"}        quiet until the agent answers
    in   "run"
    out  {"event": "running", "begin_s": ...}     a loop of inferences until the agent answers
    in   "stop"
    out  {"event": "stopped", "end_s": ..., "inferences": ...}     times on the monotonic clock
    in   "go"
    out  {"event": "reloaded", ...}     the time of a second load
    out  {"event": "passed", ...}       where the model's time goes, and what ran it
    or   {"event": "failed", "kind": ..., "message": ...} at any time, `kind` a value of the agent's FailureReason

Started ahead of a job it waits for its line with the runtime imported. It exits when its input ends, so a
killed agent leaves no worker behind.
"""

import array
import errno
import gc
import json
import math
import mmap
import os
import re
import sys
import tempfile
import threading
import time
import warnings
import zipfile
import zlib
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
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

# Disturbances only ever make a board slower, so its own speed is near the fast end of what was seen. The
# fastest quarter's edge is half a percent below the median where nothing disturbs, and stays where it is
# while up to three quarters of what is seen are disturbed.
FAST_SHARE = 0.25

WARMUP_WINDOW = 20
WARMUP_CHECK_EVERY = 5
WARMUP_MIN_RUNS = 10
WARMUP_ALWAYS_RUNS = 3
WARMUP_CAP_RUNS = 300
WARMUP_CAP_S = 15.0
# 300 inferences of 3 ms are gone before the least time is: so many times that, the cap on runs waits.
WARMUP_CAP_TIMES = 3

MEASURE_MIN_SAMPLES = 64
MEASURE_CHECK_EVERY = 32
MEASURE_CAP_SAMPLES = 5000
MEASURE_CAP_S = 60.0
# The range of 6 samples holds the median in 1 - 2 * 0.5**6 = 97 % of cases; of 5, in less than 95 %.
MEASURE_ALWAYS_SAMPLES = 6

# Below this an inference is also timed in groups, each about this long: reading the clock costs up to 0.1 µs
# twice, which is 1 % of a network of 20 µs.
GROUP_BELOW_NS = 1000000

# The canary takes turns with the model: speed changes within a second on a shared machine, and a reference
# taken only before and after the samples explained nothing of it.
TURN_MIN_RUNS = 4
CANARY_TURN_S = 0.04
CANARY_TURN_MIN_RUNS = 3
CANARY_WARMUP_S = 0.05
CANARY_WARMUP_RUNS = 5
# One reading of the canary's speed ahead of the timed part, and what lies between two: a pause, and the model untimed
# until clocks and caches are as they were. On a busy host a quarter of the moments were good ones, and 0.1 to 2 s
# long: who looks once a second misses most.
CANARY_LOOK_S = 0.15
AGAIN_PAUSE_S = 0.25
AGAIN_WARMUP_S = 0.15
# So long the model runs untimed before samples are taken: what the agent does once its answer is sent, or an event
# is told, must not share their window.
QUIET_S = 0.05
# Between turns the job pauses while the board is slower than usual by more than this, by which a job is flagged.
SLOWER_SHARE = 0.02
# The same where nobody knows yet what is usual, and a few turns, which scatter, must tell.
UNKNOWN_SLOWER_SHARE = 0.10
# After a turn of the other the caches are its own: so long the model runs untimed, and so often either of them.
REWARM_S = 0.01
REWARM_MIN_RUNS = 1
# A model of one thread that takes longer does not feel it: the median of 80 first inferences was 0.12 ms longer of 9 ms,
# and no longer of 40 ms. With two threads to wake it was 10 % longer of 23 ms.
UNFELT_S = 0.02
# Idle threads of ONNX Runtime look for work for some 35 ms, on cores that the canary needs: with two threads on two
# cores it took up to five times as long meanwhile. A step is longer than a tick of any kernel, at which the
# processor time of other threads is counted; they are at rest when they used less than this share of it.
REST_STEP_S = 0.012
REST_LIMIT_S = 0.3
REST_SHARE = 0.2

# Characters in a message, and in what it repeats of a library's.
MESSAGE_LIMIT = 1000
DETAIL_LIMIT = 500
# What a process may write into one file. Its prints go into one that nobody empties while it runs; a GPU's
# driver keeps the kernels that it compiled in others.
FILE_LIMIT_BYTES = 64 << 20
PROFILE_FILE_LIMIT_BYTES = 512 << 20

PROFILE_S = 1.0
PROFILE_MIN_RUNS = 10
# A profiler keeps every event until the end: a second of a model of 4 µs took 900 MB.
PROFILE_MAX_RUNS = 200
PROFILE_WARMUP_RUNS = 3

# Random numbers of 8 bytes each, made at a time.
DRAWN_AT_ONCE = 1 << 16

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
    """What a measurement mode asks for; `half_width` is a share of the median.

    The model and the canary take turns: `turn_s` is how long one of the model's is. For a slower board an attempt waits
    up to `speed_patience_s`: a few times what its samples take, since a search asks for many.
    """

    warmup_min_s: float
    measure_min_s: float
    turn_s: float
    half_width: float
    speed_patience_s: float


RULES = {
    "search": Rules(warmup_min_s=0.3, measure_min_s=1.0, turn_s=0.5, half_width=0.02, speed_patience_s=5.0),
    "full": Rules(warmup_min_s=1.0, measure_min_s=10.0, turn_s=2.0, half_width=0.01, speed_patience_s=60.0),
}


class JobError(Exception):
    """The job cannot be measured; `kind` is a value of the agent's FailureReason."""

    def __init__(self, kind: str, message: str) -> None:
        # Names in a model may hold anything, line breaks included.
        super().__init__(shortened(printable(message), MESSAGE_LIMIT))
        self.kind = kind


class Input(NamedTuple):
    """One input as the model declares it; `shape` is None where the format declares none.

    An axis of `shape` is a size, or where it is open a name or None; `dtype` is numpy's name.
    """

    name: str
    dtype: str
    shape: Optional[Sequence[Any]]


class Execution(NamedTuple):
    """How a runtime was set up; None for what it does not tell."""

    intra_op_threads: int
    inter_op_threads: Optional[int]
    execution_mode: Optional[str]
    spinning: Optional[bool]


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


def fast_edge(latencies: Sequence[float]) -> float:
    """Return the latency at the edge of the fastest quarter, one that was taken; of fewer than five the fastest."""
    return sorted(latencies)[int(FAST_SHARE * (len(latencies) - 1))]


def median_interval(samples: Sequence[float]) -> Tuple[float, float]:
    """Return a 95 % interval of the median of a series that may be autocorrelated.

    The series is split into 16 contiguous blocks; a t-interval on the block medians gives the half-width,
    which is laid around the median of all samples, within their range: that all of so many lie on one side of the
    median does not happen. With fewer than 16 samples it is their range.
    """
    if len(samples) < BLOCKS:
        return min(samples), max(samples)
    edges = [index * len(samples) // BLOCKS for index in range(BLOCKS + 1)]
    medians = [median(samples[start:end]) for start, end in zip(edges, edges[1:])]
    mean = math.fsum(medians) / BLOCKS
    variance = math.fsum((value - mean) ** 2 for value in medians) / (BLOCKS - 1)
    half_width = T_QUANTILE * math.sqrt(variance / BLOCKS)
    middle = median(samples)
    return max(min(samples), middle - half_width), min(max(samples), middle + half_width)


def relative_half_width(samples: Sequence[float]) -> float:
    """Return how far the median's interval reaches from it, as a share of it; infinite below 16 samples."""
    if len(samples) < BLOCKS:
        return math.inf
    low, high = median_interval(samples)
    middle = median(samples)
    return max(high - middle, middle - low) / middle


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
        many = runs >= WARMUP_CAP_RUNS and elapsed_s >= WARMUP_CAP_TIMES * self.rules.warmup_min_s
        at_cap = late or many
        if not at_cap and runs % WARMUP_CHECK_EVERY:
            return False
        settled = windows_agree(latencies)
        self.capped = at_cap and not settled
        return at_cap or settled


class Sampling:
    """Decides when enough is measured; `reached` tells that the interval is as narrow as asked."""

    def __init__(self, rules: Rules, limit_s: float = MEASURE_CAP_S) -> None:
        self.rules = rules
        self.limit_s = limit_s
        self.reached = False

    def over(self, samples: Sequence[int], elapsed_s: float) -> bool:
        """Tell whether to stop after these samples, taken within `elapsed_s` seconds."""
        count = len(samples)
        early = elapsed_s < self.rules.measure_min_s
        # The time floor wins over the cap on samples: 5,000 of 1 ms are taken in half of it.
        many = count >= MEASURE_CAP_SAMPLES and not early
        late = elapsed_s >= self.limit_s and count >= MEASURE_ALWAYS_SAMPLES
        if many or late:
            self.reached = relative_half_width(samples) <= self.rules.half_width
            return True
        if early or count < MEASURE_MIN_SAMPLES or count % MEASURE_CHECK_EVERY:
            return False
        # Twice in a row: one narrow interval among many looks may be luck.
        narrow_before = self.reached
        self.reached = relative_half_width(samples) <= self.rules.half_width
        return narrow_before and self.reached


def printable(text: str) -> str:
    """Return a text in one line, with ? for what would not show."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def shortened(text: str, limit: int) -> str:
    """Return a text cut in its middle: libraries begin with where they failed and end with why."""
    head = limit // 3
    return text if len(text) <= limit else text[:head] + " ... " + text[head + 5 - limit :]


def one_line(error: BaseException) -> str:
    """Return an error's text without line breaks, short enough to show."""
    return shortened(printable(str(error)), DETAIL_LIMIT) or type(error).__name__


def shape_text(shape: Sequence[Any]) -> str:
    """Return a shape for a person, with ? for an axis that has neither size nor name."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def resolve_shape(entry: Input, given: Optional[Sequence[int]], batch_size: int) -> List[int]:
    """Return the shape to run an input with.

    Only an open first axis, the batch, has a default. Any other size would be a guess.

    Args:
        entry: The input.
        given: The sizes that the spec gives, if any.
        batch_size: Size of an open first axis where nothing is given.

    Raises:
        JobError: open_shape where an axis stays open, invalid_shape where the model declares an impossible
            size, invalid_spec where the given sizes contradict the model.
    """
    declared = entry.shape
    if declared is None:
        if given is None:
            raise JobError(
                "open_shape",
                "the model declares no shape for its input '{}'; give it in input_shapes, "
                "e.g. {}=1,3,224,224".format(entry.name, entry.name),
            )
        return list(given)
    if any(isinstance(size, int) and size < 1 for size in declared):
        raise JobError(
            "invalid_shape",
            "the model declares the shape {} for its input '{}'; every size must be at least 1, or open; "
            "export the model again".format(shape_text(declared), entry.name),
        )
    if given is None:
        sizes = [
            batch_size if axis == 0 and not isinstance(size, int) else size
            for axis, size in enumerate(declared)
        ]
        if not all(isinstance(size, int) for size in sizes):
            raise JobError(
                "open_shape",
                "input '{}' has open axes in {}; give its full shape in input_shapes, "
                "e.g. {}=1,3,224,224".format(entry.name, shape_text(declared), entry.name),
            )
        if batch_size > 1 and sizes and sizes[0] != batch_size:
            raise JobError(
                "invalid_spec",
                "batch_size is {}, but the model fixes the first axis of '{}' to {}; "
                "export it with an open first axis".format(batch_size, entry.name, sizes[0]),
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
                entry.name, shape_text(given), shape_text(declared)
            ),
        )
    return list(given)


def resolve_shapes(
    inputs: Sequence[Input], given: Dict[str, List[int]], batch_size: int
) -> Dict[str, List[int]]:
    """Return the shape of every input.

    Raises:
        JobError: invalid_spec where a given name is no input; otherwise as `resolve_shape`.
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
    return {entry.name: resolve_shape(entry, given.get(entry.name), batch_size) for entry in inputs}


def make_inputs(
    inputs: Sequence[Input], shapes: Dict[str, List[int]], data: str, seed: int
) -> Dict[str, Any]:
    """Return arrays by input name, all zeros or random.

    Random floats are standard normal. Integers are 0 or 1, valid as an index into any table a model may hold.

    Raises:
        JobError: invalid_model where an input's type has no data, out_of_memory where it does not fit,
            invalid_spec where no array can be as large as the shapes.
    """
    import numpy

    random = numpy.random.RandomState(seed)
    arrays = {}  # type: Dict[str, Any]
    try:
        for entry in inputs:
            if entry.dtype not in NUMPY_TYPES.values():
                raise JobError(
                    "invalid_model",
                    "input '{}' is a {}; data can be made for {}".format(
                        entry.name, entry.dtype, ", ".join(sorted(NUMPY_TYPES))
                    ),
                )
            arrays[entry.name] = numpy.zeros(shapes[entry.name], entry.dtype)
            if data == "random":
                fill(arrays[entry.name], random)
    except MemoryError as error:
        raise JobError(
            "out_of_memory", "cannot make the inputs: {}; give smaller shapes".format(one_line(error))
        ) from error
    except (OverflowError, ValueError) as error:
        raise JobError(
            "invalid_spec", "cannot make the inputs: {}; give smaller shapes".format(one_line(error))
        ) from error
    return arrays


def fill(array: Any, random: Any) -> None:
    """Fill an array with random numbers, in place.

    Generators draw in 64 bits whatever is wanted: all at once, an image in bytes would take eight times its size
    meanwhile, which would count as memory of the model.
    """
    flat = array.reshape(-1)
    for begin in range(0, flat.size, DRAWN_AT_ONCE):
        part = flat[begin : begin + DRAWN_AT_ONCE]
        part[:] = (
            random.standard_normal(part.size) if flat.dtype.kind == "f" else random.randint(0, 2, part.size)
        )


class Model:
    """A model that a runtime has loaded. Subclasses set the attributes and `bind`.

    `precision` is None where the runtime does not tell; `gpu_peak_bytes` where no GPU was used.
    """

    inputs = []  # type: Sequence[Input]
    provider = ""
    precision = None  # type: Optional[str]
    execution: Execution

    def describe(self) -> None:
        """Find out the inputs and the precision, where that takes time which is none of loading."""

    def bind(self, arrays: Dict[str, Any]) -> Callable[[], object]:
        """Return a function that runs the model once on these arrays, and copies nothing more."""
        raise NotImplementedError

    def gpu_peak_bytes(self) -> Optional[int]:
        """Return the largest memory that the runtime had allocated on the GPU."""
        return None


class Runtime:
    """What runs models. Its constructor imports the library, so ImportError means that it is not there."""

    library = ""
    version = ""

    def providers(self) -> List[str]:
        """Return the execution providers that the installed build offers, best first."""
        raise NotImplementedError

    def admit(self, path: str) -> None:
        """Look at a file before it is loaded, for what only this runtime's own reader could be made to do.

        Raises:
            JobError: If the agent must not load it.
        """

    def load(self, path: str, job: Dict[str, Any]) -> Model:
        """Return the model in a file that was admitted.

        Raises:
            JobError: If it cannot be loaded as the job asks.
        """
        raise NotImplementedError

    def binds_each_thread(self, job: Dict[str, Any]) -> bool:
        """Tell whether it binds each of its threads but the calling one to a processor of the job's own list.

        Otherwise they share what the calling thread is bound to when it starts them.
        """
        return False

    def runs_on_its_threads_alone(self, job: Dict[str, Any]) -> bool:
        """Tell whether nothing but the threads that the job names runs the model: no accelerator, no pool of its own."""
        return False

    def leaves_rest_to_the_cpu(self, job: Dict[str, Any]) -> bool:
        """Tell whether what the provider asked for cannot run may have been run on the CPU, without a word."""
        return False

    def profile(self, path: str, job: Dict[str, Any], arrays: Dict[str, Any]) -> List[Dict[str, Any]]:
        """Return the time of every layer in a pass of its own: layer, operator_type, provider, mean_ns, calls."""
        raise NotImplementedError

    def errors(self) -> Tuple[Type[BaseException], ...]:
        """Return the exception types that mean a fault of the model."""
        raise NotImplementedError

    def cause(self, error: BaseException) -> str:
        """Return that part of an exception's text which says what is wrong with the model."""
        return str(error)

    def fault(self, error: BaseException, doing: str) -> JobError:
        """Return what to report for an exception of the library; `doing` is load or run."""
        text = self.cause(error)
        told = [kind for kind, pattern in FAULTS if re.search(pattern, text, re.IGNORECASE)]
        kind = "out_of_memory" if isinstance(error, MemoryError) else (told or ["invalid_model"])[0]
        text = shortened(printable(text), DETAIL_LIMIT) or type(error).__name__
        advice = {
            "out_of_memory": "; measure a smaller model or batch",
            "unsupported_opset": "; export the model for an older operator set or install a newer runtime",
            "unsupported_operator": "; export the model with other operators or install a newer runtime",
            "custom_operator": "; this agent loads no library of operators, export the model without",
        }.get(kind, "")
        return JobError(kind, "{} cannot {} the model: {}{}".format(self.library, doing, text, advice))


# How the libraries say that something other than the model's own bytes is the matter: ONNX Runtime 1.4 to
# 1.32, PyTorch 1.10 to 2.14. The first that is found counts.
FAULTS = (
    (
        "out_of_memory",
        r"bad.?alloc|bad.array.new.length|larger than max_size|failed to allocate|can(no|')t allocate"
        r"|not enough memory|out of memory|smaller than requested bytes|storage size.{0,20} overflow",
    ),
    (
        "unsupported_opset",
        r"unsupported model ir version|opset \d+ is under development|opset.{0,40}not supported"
        r"|till opset|unrecognized opset|unknown model file.?format version|maximum supported version for reading",
    ),
    ("custom_operator", r"registered via torch::class_|unknown type name '__torch__\.torch\.classes"),
    (
        "unsupported_operator",
        r"could not find an implementation|failed to find kernel|no op registered|not a registered function"
        r"|no opset import|unknown builtin op|has no attribute or method|unsupported operator|not implemented for"
        r"|could not run '\w+::",
    ),
)


# Where in its own source ONNX Runtime found an error: file, line, and the whole signature of the function.
ONNX_RUNTIME_PLACE = re.compile(
    r"(?:/[\w.+-]+)+\.(?:cc|h|cpp):\d+ [^()]*\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with [^\]]*\])? "
)


CPU = "CPUExecutionProvider"
XNNPACK = "XnnpackExecutionProvider"
# First release with the option session.intra_op_thread_affinities.
AFFINITIES_SINCE = (1, 14)


class OnnxRuntime(Runtime):
    """ONNX Runtime."""

    library = "onnxruntime"

    def __init__(self) -> None:
        import numpy  # noqa: F401
        import onnxruntime

        self.onnxruntime = onnxruntime  # type: Any
        self.version = onnxruntime.__version__  # type: str

    def providers(self) -> List[str]:
        return list(self.onnxruntime.get_available_providers())

    def errors(self) -> Tuple[Type[BaseException], ...]:
        # It raises about a dozen types that share no base.
        from onnxruntime.capi import onnxruntime_pybind11_state

        own = [value for value in vars(onnxruntime_pybind11_state).values() if isinstance(value, type)]
        own = [kind for kind in own if issubclass(kind, Exception)]
        return tuple(own) + (RuntimeError, ValueError, NotImplementedError, MemoryError)

    def cause(self, error: BaseException) -> str:
        return ONNX_RUNTIME_PLACE.sub("", str(error))

    def binds_each_thread(self, job: Dict[str, Any]) -> bool:
        # Before 1.14 it ignores the option, as any that it does not know. XNNPACK has a pool of its own.
        release = tuple(int(part) for part in re.findall(r"\d+", self.version)[:2])
        return release >= AFFINITIES_SINCE and job["provider"] != XNNPACK

    def runs_on_its_threads_alone(self, job: Dict[str, Any]) -> bool:
        return job["provider"] in ("", CPU)

    def leaves_rest_to_the_cpu(self, job: Dict[str, Any]) -> bool:
        return not self.runs_on_its_threads_alone(job)

    def load(self, path: str, job: Dict[str, Any]) -> Model:
        return self.open(path, job)

    def open(
        self, path: str, job: Dict[str, Any], profile_prefix: str = "", polite: bool = False
    ) -> "OnnxModel":
        """Return a loaded model.

        Args:
            path: Its file.
            job: Threads, affinity and provider are taken from here.
            profile_prefix: Beginning of the profiler's file names; empty for no profile.
            polite: Whether idle threads stop spinning as soon as a run ends: for a model that takes turns.

        Raises:
            JobError: If it cannot be loaded as the job asks.
        """
        threads = job["threads"]
        wanted = job["provider"] or CPU
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = self.onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Its warnings are about the model's graph; on standard error they would hide why a worker died.
        options.log_severity_level = 3
        providers = [(wanted, {})]  # type: List[Any]
        if wanted == XNNPACK:
            # As ONNX Runtime's documentation recommends: its own pool would only be in the way of XNNPACK's. What
            # XNNPACK cannot run has one thread then.
            providers = [(wanted, {"intra_op_num_threads": str(threads)})]
            options.intra_op_num_threads = 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        elif job["cpu_affinity"] and threads > 1 and self.binds_each_thread(job):
            # One entry a thread but for the calling one, which is bound by the system; counted from 1.
            entries = ";".join(str(cpu + 1) for cpu in job["cpu_affinity"][1:])
            options.add_session_config_entry("session.intra_op_thread_affinities", entries)
        if polite:
            options.add_session_config_entry("session.force_spinning_stop", "1")
        if profile_prefix:
            options.enable_profiling = True
            options.profile_file_prefix = profile_prefix
        if wanted != CPU:
            providers.append(CPU)
        try:
            session = self.onnxruntime.InferenceSession(path, options, providers=providers)
        except self.errors() as error:
            raise self.fault(error, "load") from error
        if session.get_providers()[0] != wanted:
            raise JobError(
                "invalid_spec",
                "onnxruntime fell back from {} to {}; check that provider's own libraries on the board, "
                "or measure with another".format(wanted, session.get_providers()[0]),
            )
        execution = Execution(threads, options.inter_op_num_threads, "sequential", wanted != XNNPACK)
        try:
            return OnnxModel(session, execution)
        except UnicodeDecodeError as error:
            raise JobError(
                "invalid_model",
                "the name of an input is no text: {}; export the model again".format(one_line(error)),
            ) from error

    def profile(self, path: str, job: Dict[str, Any], arrays: Dict[str, Any]) -> List[Dict[str, Any]]:
        limit_files(PROFILE_FILE_LIMIT_BYTES)
        # The agent gives each worker a folder for what is temporary, and removes it.
        model = self.open(path, job, profile_prefix=os.path.join(tempfile.gettempdir(), "profile"))
        run = model.bind(arrays)
        repeat(run, 0, PROFILE_WARMUP_RUNS)
        runs = profiled_runs(run, PROFILE_S if job["profile"] else 0.0)
        return aggregate_profile(read_profile(model.session.end_profiling()), runs)


class OnnxModel(Model):
    """A session of ONNX Runtime."""

    def __init__(self, session: Any, execution: Execution) -> None:
        self.session = session
        self.execution = execution
        self.provider = session.get_providers()[0]
        self.inputs = [
            Input(entry.name, NUMPY_TYPES.get(entry.type, entry.type), entry.shape)
            for entry in session.get_inputs()
        ]

    def bind(self, arrays: Dict[str, Any]) -> Callable[[], object]:
        session, binding = self.session, self.session.io_binding()
        for name, values in arrays.items():
            binding.bind_cpu_input(name, values)
        for entry in session.get_outputs():
            binding.bind_output(entry.name)
        return lambda: session.run_with_iobinding(binding)


def read_profile(path: str) -> List[Dict[str, Any]]:
    """Return the events in a file of ONNX Runtime's profiler.

    Raises:
        ValueError: If it is cut off: nothing else tells that it has outgrown what this process may write.
    """
    with open(path) as file:
        try:
            return cast(List[Dict[str, Any]], json.load(file))
        except ValueError as error:
            size_mb = os.path.getsize(path) / 1e6
            raise ValueError("its file is cut off at {:.0f} MB".format(size_mb)) from error


def aggregate_profile(events: Sequence[Dict[str, Any]], runs: int) -> List[Dict[str, Any]]:
    """Return the time of every layer from ONNX Runtime's events, over the last `runs` inferences.

    Source: the trace format of onnxruntime's profiler; `dur` is in microseconds.
    """
    ends = sorted(event["ts"] + event["dur"] for event in events if event.get("name") == "model_run")
    since = ends[-runs - 1] if len(ends) > runs else -math.inf
    layers = {}  # type: Dict[Tuple[str, str, str], List[float]]
    for event in events:
        name = event.get("name", "")
        if event.get("cat") != "Node" or not name.endswith("_kernel_time") or event["ts"] < since:
            continue
        arguments = event.get("args", {})
        # A convolution whose data was laid out anew is named after what it computes, with this suffix.
        layer = re.sub("_nchwc$", "", name[: -len("_kernel_time")])
        key = (layer, arguments.get("op_name", ""), arguments.get("provider", ""))
        layers.setdefault(key, []).append(1e3 * event["dur"])
    return layer_rows(layers, runs)


def layer_rows(layers: Dict[Tuple[str, str, str], List[float]], runs: int) -> List[Dict[str, Any]]:
    """Return times in nanoseconds by (layer, operator type, provider) as rows, slowest first."""
    rows = [
        {
            "layer": layer,
            "operator_type": operator_type,
            "provider": provider,
            "mean_ns": math.fsum(times) / runs,
            "calls": len(times) / runs,
        }
        for (layer, operator_type, provider), times in layers.items()
    ]
    return sorted(rows, key=lambda row: cast(float, row["mean_ns"]), reverse=True)


def cpu_fallback(rows: Sequence[Dict[str, Any]], job: Dict[str, Any], unknown: str) -> str:
    """Return how much of a model ran on ONNX Runtime's own provider, or why nobody knows; empty for nothing.

    ONNX Runtime gives it whatever the provider asked for cannot run, and does not say so.

    Args:
        rows: The layers as `layer_rows` returns them.
        job: What was asked for.
        unknown: Why there are none.
    """
    if not rows or not all(row["provider"] for row in rows):
        return "it is not known which nodes ran on {}: {}".format(
            CPU, unknown or "the profile names no provider"
        )
    on_cpu = [row for row in rows if row["provider"] == CPU]
    if not on_cpu:
        return ""
    total_ns, cpu_ns = (math.fsum(row["mean_ns"] for row in part) for part in (rows, on_cpu))
    return "{} of {} nodes ran on {}{}, for {:.0f} % of the time in the profile".format(
        len(on_cpu),
        len(rows),
        CPU,
        " with one thread" if job["provider"] == XNNPACK else "",
        100 * cpu_ns / total_ns if total_ns else 0,
    )


def refuse_file_access(path: str) -> None:
    """Return if the code of a TorchScript archive can open no file and no socket.

    Loading runs code already, so it is looked at before. A built-in can be had under any alias, but its name
    must stand in the code.

    Raises:
        JobError: external_data where the code names what opens files, invalid_model where it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [(entry, entry.partition("/")[2]) for entry in archive.namelist()]
            # Until PyTorch 1.4 this file said where the code stands: anywhere.
            if "model.json" in [inner for _, inner in names]:
                raise JobError(
                    "invalid_model",
                    "the TorchScript archive is in the format of before PyTorch 1.4; save it with a newer one",
                )
            code = [archive.read(entry) for entry, inner in names if re.match(r"code/.*\.py$", inner)]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise JobError(
            "invalid_model", "the TorchScript archive cannot be unpacked: {}".format(one_line(error))
        ) from error
    for text in code:
        found = FILE_ACCESS.search(OWN_NAMES.sub(b"", text))
        if found:
            raise JobError(
                "external_data",
                "the code of the model names '{}', which opens files or sockets, and this agent lets a model reach "
                "for nothing beyond itself; export the model without it, or rename what it calls so".format(
                    found.group().decode("ascii")
                ),
            )


# PyTorch's built-ins with a file or socket behind them: operators of 2.14, classes of 1.10.
FILE_ACCESS = re.compile(rb"\b(?:from_file|save|load_tensor|FileStore|TCPStore)\b")
# The qualified names of the model's own classes and functions, which may be called like a built-in.
OWN_NAMES = re.compile(rb"\b__torch__(?!\.torch\.classes\b)[\w.]*")


class TorchScriptRuntime(Runtime):
    """PyTorch, running TorchScript archives."""

    library = "torch"

    def __init__(self) -> None:
        import numpy  # noqa: F401
        import torch

        self.torch = torch  # type: Any
        self.version = torch.__version__

    def providers(self) -> List[str]:
        return (["cuda"] if self.torch.cuda.is_available() else []) + ["cpu"]

    def errors(self) -> Tuple[Type[BaseException], ...]:
        # A model raises what it likes, as torch.jit.Error; one without a forward is found by its absence.
        return (
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RuntimeError,
            TypeError,
            ValueError,
            self.torch.jit.Error,
        )

    def cause(self, error: BaseException) -> str:
        text = str(error)
        if "TorchScript interpreter" not in text:
            return text
        # Where it was in the model's code comes first, indented, and may be of any length.
        told = re.search(r"^[\w.]+: .*", text.rsplit("<--- HERE", 1)[-1], re.MULTILINE | re.DOTALL)
        return told.group() if told else text

    def admit(self, path: str) -> None:
        refuse_file_access(path)

    def runs_on_its_threads_alone(self, job: Dict[str, Any]) -> bool:
        return job["provider"] in ("", "cpu")

    def load(self, path: str, job: Dict[str, Any]) -> Model:
        provider = job["provider"] or "cpu"
        if self.torch.get_num_threads() != job["threads"]:
            self.torch.set_num_threads(job["threads"])
        if self.torch.get_num_interop_threads() != 1:
            try:
                self.torch.set_num_interop_threads(1)
            except RuntimeError:
                # Something has used them already; how many there are, is told.
                pass
        self.torch.set_grad_enabled(False)
        try:
            module = self.torch.jit.load(path, map_location=provider).eval()
            return TorchScriptModel(self.torch, module, provider)
        except self.errors() as error:
            raise self.fault(error, "load") from error

    def profile(self, path: str, job: Dict[str, Any], arrays: Dict[str, Any]) -> List[Dict[str, Any]]:
        model = cast(TorchScriptModel, self.load(path, job))
        model.describe()
        run = model.bind(arrays)
        repeat(run, 0, PROFILE_WARMUP_RUNS)
        cuda = model.provider == "cuda"
        try:
            profiler = self.torch.autograd.profiler.profile(use_device="cuda" if cuda else None)
        except TypeError:  # PyTorch before 2.1
            profiler = self.torch.autograd.profiler.profile(use_cuda=cuda)
        with profiler as profile:
            runs = profiled_runs(run)
        # What an operator calls is part of it: only the outermost ones count.
        events = [
            event
            for event in profile.function_events
            if event.name.startswith("aten::")
            and not (event.cpu_parent and event.cpu_parent.name.startswith("aten::"))
        ]
        events.sort(key=lambda event: event.time_range.start)
        names = layers_in_order(model.module.inlined_graph)
        layers = {}  # type: Dict[Tuple[str, str, str], List[float]]
        place = 0
        for event in events:
            # The optimiser leaves operators out, and adds none: look ahead, and begin anew with every run.
            ahead = names[place:] + names[:place]
            steps = [step for step, (_, kind) in enumerate(ahead) if kind == event.name]
            layer = ahead[steps[0]][0] if steps else event.name
            place = (place + steps[0] + 1) % len(names) if steps else place
            layers.setdefault((layer, event.name, model.provider), []).append(1e3 * spent_us(event, cuda))
        return layer_rows(layers, runs)


def spent_us(event: Any, on_gpu: bool) -> float:
    """Return the microseconds that an event of PyTorch's profiler took, with all that it called."""
    if not on_gpu:
        return float(event.cpu_time_total)
    # Before 2.4 or so it went by the one kind of device that there was.
    return float(event.device_time_total if hasattr(event, "device_time_total") else event.cuda_time_total)


def nodes_of(block: Any) -> Iterator[Any]:
    """Give every node of a TorchScript graph in order, those in both branches of a condition included."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            for below in nodes_of(inner):
                yield below


def float_type(module: Any) -> Any:
    """Return the floating-point type of most of a TorchScript module's numbers; None where it cannot be told.

    Freezing a module turns its parameters into constants of its graph. What is quantized has floats only at its
    borders; a constant without axes is a number of the code, which tracing keeps as a float64 of its own.
    """
    # Made anew each time, and gone with its nodes as soon as nobody holds it.
    graph = module.inlined_graph
    nodes = list(nodes_of(graph))
    if any(node.kind().startswith(("quantized::", "aten::quantize", "aten::dequantize")) for node in nodes):
        return None
    tensors = list(module.parameters()) + list(module.buffers())
    for node in nodes:
        if (
            node.kind() == "prim::Constant"
            and "value" in node.attributeNames()
            and node.kindOf("value") == "t"
        ):
            tensors.append(node.t("value"))
    elements = {}  # type: Dict[Any, int]
    for tensor in tensors:
        if tensor.dtype.is_floating_point and tensor.dim():
            elements[tensor.dtype] = elements.get(tensor.dtype, 0) + tensor.numel()
    return max(elements, key=lambda dtype: elements[dtype]) if elements else None


def layers_in_order(block: Any) -> List[Tuple[str, str]]:
    """Return the path of the module and the kind of every operator of an inlined TorchScript graph, in order.

    The operators of both branches of a condition are there. Those on numbers alone are left out, as no profiler
    shows them. A module's path is told since PyTorch 1.9; an operator without one goes by its kind.
    """
    layers = []  # type: List[Tuple[str, str]]
    for node in nodes_of(block):
        kind = node.kind()
        if kind.startswith("aten::") and any("Tensor" in str(value.type()) for value in node.outputs()):
            # E.g. stem(Block).norm(BatchNorm2d).UNKNOWN_INSTANCE(UNKNOWN_TYPE): of what is a function, not a module.
            told = node.getModuleHierarchy() if hasattr(node, "getModuleHierarchy") else ""
            names = [
                name for name in re.findall(r"(\w+)\(", told) if name not in ("SELF", "UNKNOWN_INSTANCE")
            ]
            layers.append((".".join(names) or kind, kind))
    return layers


class TorchScriptModel(Model):
    """A loaded TorchScript module."""

    def __init__(self, torch: Any, module: Any, provider: str) -> None:
        self.torch = torch
        self.module = module
        self.provider = provider
        # PyTorch does not tell whether its threads spin, nor is there a mode of execution to choose.
        self.execution = Execution(torch.get_num_threads(), torch.get_num_interop_threads(), None, None)
        self.dtype = torch.float32
        self.arguments = module.forward.schema.arguments[1:]
        for argument in self.arguments:
            if str(argument.type) != "Tensor":
                raise JobError(
                    "invalid_model",
                    "argument '{}' of forward is a {}; only tensors can be made, script the model "
                    "without it".format(argument.name, argument.type),
                )

    def describe(self) -> None:
        found = float_type(self.module)
        if found is not None:
            self.dtype = found
            self.precision = str(found).replace("torch.", "")
        # numpy has no bfloat16: inputs of it are made in float32, and converted by PyTorch.
        told = self.precision or "float32"
        made = told if told in NUMPY_TYPES.values() else "float32"
        self.inputs = [Input(argument.name, made, None) for argument in self.arguments]

    def bind(self, arrays: Dict[str, Any]) -> Callable[[], object]:
        tensors = [
            self.torch.from_numpy(arrays[entry.name]).to(self.provider, self.dtype) for entry in self.inputs
        ]
        module = self.module
        if self.provider != "cuda":
            return lambda: module(*tensors)
        synchronize = self.torch.cuda.synchronize
        self.torch.cuda.reset_peak_memory_stats()
        synchronize()

        def run() -> None:
            module(*tensors)
            synchronize()

        return run

    def gpu_peak_bytes(self) -> Optional[int]:
        return int(self.torch.cuda.max_memory_allocated()) if self.provider == "cuda" else None


RUNTIMES = {"onnx": OnnxRuntime, "torchscript": TorchScriptRuntime}  # type: Dict[str, Type[Runtime]]


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
        # What the reference model took is not the model's.
        self.foreign = 0
        if status_kib("/proc/self/status", "VmHWM") is None:
            self.method = "ru_maxrss"
            return
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except (IOError, OSError) as error:
            self.method = "VmHWM (not reset before the model: {})".format(error.strerror)

    def high_water(self) -> int:
        """Return the high-water mark in bytes as it is now."""
        kib = status_kib("/proc/self/status", "VmHWM")
        if kib is not None:
            return kib * 1024
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def mark(self) -> None:
        """Note the high-water mark, less what was excluded."""
        self.marks.append(self.high_water() - self.foreign)

    def exclude(self, load: Callable[[], Any]) -> Any:
        """Return what `load` returns, and keep what it adds to the high-water mark out of later marks."""
        before = self.high_water()
        try:
            return load()
        finally:
            self.foreign += self.high_water() - before

    def report(self) -> Dict[str, Any]:
        """Return the four marks in order, the proportional set size now, and the method."""
        pss = status_kib("/proc/self/smaps_rollup", "Pss")
        return {"marks": self.marks, "pss": None if pss is None else pss * 1024, "method": self.method}


def limit_memory(limit_bytes: Optional[int]) -> None:
    """Bound what this process may allocate beyond what it has: a model without end must not take the board.

    Private writable memory counts, not address space: libraries reserve far more of that than they touch.
    """
    used_kib = status_kib("/proc/self/status", "VmData")
    if limit_bytes is None or used_kib is None:
        return
    import resource

    limit = used_kib * 1024 + limit_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    # The upper limit as well: what may be raised again is none for hostile code.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def limit_files(limit_bytes: int) -> None:
    """Bound each file that this process writes: neither prints nor a core dump must fill the board's disk.

    A print beyond the bound fails, and whoever prints does not look.
    """
    try:
        import resource
    except ImportError:
        # Off Unix.
        return
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if hard != resource.RLIM_INFINITY:
        limit_bytes = min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def offer_to_the_oom_killer() -> None:
    """Have the kernel end this process first where memory runs out, rather than the agent."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except (IOError, OSError):
        # Off Linux, or forbidden: the kernel then chooses by size, which mostly is this process as well.
        pass


def drop_from_page_cache(path: str) -> bool:
    """Have the next reader of a file wait for the disk; return whether that worked."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return not is_cached(descriptor)
    except (AttributeError, OSError, ValueError):
        return False
    finally:
        os.close(descriptor)


def is_cached(descriptor: int) -> bool:
    """Tell whether any page of a file lies in the page cache: a file system in memory never lets go of it.

    Raises:
        OSError: If the system does not tell.
    """
    import ctypes

    size = os.fstat(descriptor).st_size
    pages = -(-size // mmap.PAGESIZE)
    # Private, as Python gives no address of a mapping that it may not write.
    with mmap.mmap(
        descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
    ) as mapping:
        view = (ctypes.c_char * size).from_buffer(mapping)
        resident = (ctypes.c_ubyte * pages)()
        failed = ctypes.CDLL(None).mincore(
            ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), resident
        )
        del view
    if failed:
        raise OSError("mincore does not answer")
    return any(page & 1 for page in resident)


def repeat(run: Callable[[], object], least_s: float, least_runs: int) -> int:
    """Call `run` for at least so long and so often, untimed; return how often."""
    end = time.monotonic() + least_s
    runs = 0
    while runs < least_runs or time.monotonic() < end:
        run()
        runs += 1
    return runs


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


def profiled_runs(run: Callable[[], object], least_s: float = PROFILE_S) -> int:
    """Call `run` often enough for a profile, and not too often for its memory; return how often."""
    latencies = timed_runs(
        run,
        lambda latencies, elapsed_s: (
            len(latencies) >= PROFILE_MAX_RUNS
            or (elapsed_s >= least_s and len(latencies) >= PROFILE_MIN_RUNS)
        ),
    )
    return len(latencies)


def rest() -> float:
    """Sleep until no thread of this process works; return the seconds asked for, less than they took."""
    asked_s = 0.0
    spent_s = time.process_time()
    while asked_s < REST_LIMIT_S:
        time.sleep(REST_STEP_S)
        asked_s += REST_STEP_S
        before_s, spent_s = spent_s, time.process_time()
        if spent_s - before_s < REST_SHARE * REST_STEP_S:
            break
    return asked_s


class Canary:
    """The agent's reference model, run in turn with the model that is measured.

    Args:
        path: Its file.
        job: Whose number of threads and processors it takes.
        alone: Whether the model has no threads but the calling one, so that none is to be waited for.
    """

    def __init__(self, path: str, job: Dict[str, Any], alone: bool) -> None:
        runtime = OnnxRuntime()
        model = runtime.open(path, dict(job, provider=""), polite=True)
        shapes = resolve_shapes(model.inputs, {}, 1)
        self.run = model.bind(make_inputs(model.inputs, shapes, "random", 0))
        self.waits_for_rest = not alone
        self.turns = []  # type: List[List[int]]
        self.rested_s = 0.0
        repeat(self.run, CANARY_WARMUP_S, CANARY_WARMUP_RUNS)

    def turn(self) -> None:
        """Run it for a moment, and keep the latencies."""
        self.turns.append(self.latencies(CANARY_TURN_S))

    def look(self) -> float:
        """Return what it takes right now, in nanoseconds."""
        return median(self.latencies(CANARY_LOOK_S))

    def latencies(self, least_s: float) -> List[int]:
        """Run it for so long once the model's threads rest; its first run finds the model's data in the caches."""
        self.rested_s = rest() if self.waits_for_rest else 0.0
        repeat(self.run, 0, REWARM_MIN_RUNS)
        return list(
            timed_runs(
                self.run,
                lambda latencies, elapsed_s: elapsed_s >= least_s and len(latencies) >= CANARY_TURN_MIN_RUNS,
            )
        )


def start_canary(path: str, job: Dict[str, Any], alone: bool) -> Tuple[Optional[Canary], str]:
    """Return the reference model, warm; or None, and why it cannot be run.

    A Python with PyTorch alone has no runtime for it, and a large model may leave it no memory: neither keeps
    a model from being measured.
    """
    try:
        return Canary(path, job, alone), ""
    except ImportError as error:
        return None, "the reference model needs onnxruntime: {}; install it for the worker's Python".format(
            one_line(error)
        )
    except Exception as error:
        return None, "the reference model cannot be run: {}".format(one_line(error))


class Patience(NamedTuple):
    """How long a job may pause, all in all, for a board on which the reference model usually takes so long.

    Where nobody knows what is usual, the fast edge of the job's own turns has to tell.
    """

    limit_s: float
    usual_ns: Optional[float] = None

    def reference_ns(self, turns: Sequence[Sequence[int]]) -> float:
        """Return what to compare a turn with, given all turns so far."""
        if self.usual_ns is not None:
            return self.usual_ns
        return fast_edge([median(turn) for turn in turns])


class Series:
    """The timed part: the model and the canary in turns until enough is known.

    Attributes:
        samples_ns: Every timed inference, in order.
        groups_ns: Loops of `group_runs` inferences each, one after every sample; empty for slower models.
        turn_ends: How many samples had been taken at the end of each of the model's turns.
        longest_stall_ns: Longest time that went by beyond the usual between two ends of runs, timed or not;
            wherever the process is stopped, it is within one of them.
        runs: Inferences of model and canary together.
        paused_s: How long it paused, all in all.
        vain_s: How long it paused last where the board was still slower than usual when the limit was reached.
        involuntary_switches: Times that this process was taken off a core, pauses apart.
        major_faults: Pages that it had to read from a disk, pauses apart.

    Args:
        run: Runs the model.
        canary: The reference model; None where there is none.
        typical_ns: What the model takes.
        turn_s: How long one of its turns is.
        patience: When to pause; None for never.
        announce: Told the phase when a pause begins and ends, and what it waits for.
    """

    def __init__(
        self,
        run: Callable[[], object],
        canary: Optional[Canary],
        typical_ns: float,
        turn_s: float,
        patience: Optional[Patience] = None,
        announce: Callable[[str, str], object] = lambda phase, detail: None,
    ) -> None:
        self.run = run
        self.canary = canary
        self.patience = patience
        self.announce = announce
        self.paused_s = 0.0
        self.vain_s = 0.0
        self.involuntary_switches = 0
        self.major_faults = 0
        self.turn_ns = 1e9 * turn_s
        self.samples_ns = array.array("q")
        self.groups_ns = array.array("q")
        fast = typical_ns < GROUP_BELOW_NS
        self.group_runs = max(2, int(math.ceil(GROUP_BELOW_NS / typical_ns))) if fast else 0
        self.turn_ends = []  # type: List[int]
        self.typical_ns = typical_ns
        self.longest_stall_ns = 0
        # Up to here every nanosecond was looked at for a stall.
        self.accounted_ns = 0
        self.runs = 0
        self.spent_ns = 0

    def take(self, over: Callable[[Sequence[int], float], bool]) -> None:
        """Take samples until `over` is true of them and of the seconds spent on them."""
        ended = False
        self.begin_window()
        while not ended:
            self.canary_turn()
            self.pause_while_slow()
            self.rewarm()
            ended = self.model_turn(over)
            self.turn_ends.append(len(self.samples_ns))
        self.canary_turn()
        self.end_window()

    def rewarm(self) -> None:
        """Run the model untimed after a turn of the canary, unless it takes too long to feel that there was one."""
        alone = self.canary is not None and not self.canary.waits_for_rest
        if alone and self.typical_ns > 1e9 * UNFELT_S:
            return
        self.runs += repeat(self.run, REWARM_S, REWARM_MIN_RUNS)
        # A run may begin right before the time is over.
        self.account(max(1e9 * REWARM_S + self.typical_ns, REWARM_MIN_RUNS * self.typical_ns))

    def begin_window(self) -> None:
        """Begin to look at what happens to this process."""
        switches, faults = usage()
        self.involuntary_switches -= switches
        self.major_faults -= faults
        self.accounted_ns = perf_counter_ns()

    def end_window(self) -> None:
        """Look no longer: the timed part is over, or pauses."""
        switches, faults = usage()
        self.involuntary_switches += switches
        self.major_faults += faults

    def pause_while_slow(self) -> None:
        """Sleep until the board is as fast as usual, or the limit is reached.

        The canary then has another turn, behind a stretch of no samples, so that the turn before speaks for the
        samples before it, and this one for those that follow.
        """
        if self.canary is None or self.patience is None or self.paused_s >= self.patience.limit_s:
            return
        known = self.patience.usual_ns is not None
        reference_ns = self.patience.reference_ns(self.canary.turns)
        bound_ns = (1 + (SLOWER_SHARE if known else UNKNOWN_SLOWER_SHARE)) * reference_ns
        latencies = self.canary.turns[-1]
        if median(latencies) <= bound_ns:
            return
        self.end_window()
        begin_s, left_s = time.monotonic(), self.patience.limit_s - self.paused_s
        self.announce(
            "gate",
            "the reference model takes {:.0f} % longer than it {}".format(
                100 * (median(latencies) / reference_ns - 1),
                "usually does on this board" if known else "did before",
            ),
        )
        spent_s = 0.0
        while median(latencies) > bound_ns and spent_s < left_s:
            time.sleep(min(AGAIN_PAUSE_S, left_s - spent_s))
            repeat(self.run, AGAIN_WARMUP_S, 1)
            latencies = self.canary.latencies(CANARY_TURN_S)
            spent_s = time.monotonic() - begin_s
        self.canary.turns.append(latencies)
        self.turn_ends.append(len(self.samples_ns))
        self.announce("measure", "")
        repeat(self.run, QUIET_S, 1)
        spent_s = time.monotonic() - begin_s
        self.paused_s += spent_s
        if median(latencies) > bound_ns:
            self.vain_s = spent_s
        # What happened in a pause is no disturbance, nor is the pause a stall.
        self.begin_window()

    def canary_turn(self) -> None:
        """Let the canary have its turn, if there is one."""
        if self.canary is None:
            return
        self.canary.turn()
        latencies = self.canary.turns[-1]
        self.runs += len(latencies)
        self.note_stall(max(latencies) - median(latencies))
        usual_ns = 1e9 * self.canary.rested_s + sum(latencies) + 2 * REWARM_MIN_RUNS * median(latencies)
        self.account(usual_ns)

    def model_turn(self, over: Callable[[Sequence[int], float], bool]) -> bool:
        """Take samples for a moment; return whether they are enough."""
        run, group_runs = self.run, range(self.group_runs)
        samples, groups = self.samples_ns, self.groups_ns
        begin, previous = perf_counter_ns(), self.accounted_ns
        first, stall = len(samples), 0
        ended = False
        while not ended:
            start = perf_counter_ns()
            run()
            end = perf_counter_ns()
            samples.append(end - start)
            if group_runs:
                start = perf_counter_ns()
                for _ in group_runs:
                    run()
                end = perf_counter_ns()
                groups.append(end - start)
            spent_s = (self.spent_ns + end - begin) / 1e9
            ended = over(samples, spent_s)
            stall = max(stall, end - previous)
            previous = end
            if end - begin >= self.turn_ns and len(samples) - first >= TURN_MIN_RUNS:
                break
        self.spent_ns += end - begin
        self.accounted_ns = end
        taken = len(samples) - first
        self.runs += taken * (1 + self.group_runs)
        usual = median(samples[first:]) + (median(groups[first:]) if group_runs else 0)
        self.note_stall(stall - usual)
        return ended

    def account(self, usual_ns: float) -> None:
        """Look for a stall in what went by since the last look, of which so much is usual."""
        now = perf_counter_ns()
        self.note_stall(now - self.accounted_ns - usual_ns)
        self.accounted_ns = now

    def note_stall(self, nanoseconds: float) -> None:
        """Remember a stall if it is the longest."""
        self.longest_stall_ns = max(self.longest_stall_ns, int(nanoseconds))


def usage() -> Tuple[int, int]:
    """Return this process's involuntary context switches and major faults so far."""
    import resource

    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_nivcsw, own.ru_majflt


class Agent:
    """The other end: events go out, the job and then words come in."""

    def __init__(self, protocol: TextIO) -> None:
        self.protocol = protocol
        self.words = []  # type: List[str]
        self.taken = 0
        self.arrived = threading.Condition()

    def emit(self, event: str, **fields: Any) -> None:
        """Send one event."""
        self.protocol.write(json.dumps(dict(fields, event=event)) + "\n")
        self.protocol.flush()

    def phase(self, name: str, detail: str = "") -> None:
        """Tell that another part of the job begins, or what it waits for."""
        self.emit("phase", phase=name, detail=detail)

    def listen(self, rest: bytes) -> None:
        """Keep the words that arrive, from a thread of its own; end the process where the input ends."""
        # Unbuffered: a reader that holds a buffer's lock while the interpreter ends would abort it.
        while True:
            *lines, rest = rest.split(b"\n")
            with self.arrived:
                self.words += [line.decode("utf-8") for line in lines]
                self.arrived.notify_all()
            piece = os.read(0, 4096)
            if not piece:
                os._exit(1)
            rest += piece

    def answered(self) -> bool:
        """Tell, at the cost of a comparison, whether the agent has answered the last event."""
        return len(self.words) > self.taken

    def wait(self) -> str:
        """Sleep until the agent answers; return its word."""
        with self.arrived:
            while not self.answered():
                self.arrived.wait()
        self.taken += 1
        return self.words[self.taken - 1]

    def run_meanwhile(self, run: Callable[[], object]) -> Tuple[str, int]:
        """Run the model untimed until the agent answers; return its word and how often the model ran."""
        runs = 0
        while not self.answered():
            run()
            runs += 1
        return self.wait(), runs


def measure(runtime: Runtime, job: Dict[str, Any], agent: Agent) -> None:
    """Measure the job's model and tell the agent, times in nanoseconds; then go through the passes beside it.

    Raises:
        JobError: If the model or the spec cannot be measured.
    """
    cpus = job["cpu_affinity"]
    if cpus:
        # Threads that the runtime does not bind itself inherit what is set here.
        bind_to(cpus[:1] if runtime.binds_each_thread(job) else cpus)
    runtime.admit(job["model_path"])
    agent.phase("load")
    # A phase is announced over the network while the next instructions already run.
    time.sleep(0.05)
    cold = drop_from_page_cache(job["model_path"])
    memory = Memory()
    memory.mark()
    limit_memory(job["memory_limit_bytes"])
    start = perf_counter_ns()
    model = runtime.load(job["model_path"], job)
    load_ns = perf_counter_ns() - start
    memory.mark()
    model.describe()
    check_precision(model, job["precision"])
    shapes = resolve_shapes(model.inputs, job["input_shapes"], job["batch_size"])
    arrays = make_inputs(model.inputs, shapes, job["input_data"], job["seed"])
    try:
        run = model.bind(arrays)
        first_ns = timed_runs(run, lambda latencies, elapsed_s: True)[0]
        memory.mark()
        fields = measure_latency(run, job, agent, memory, runs_alone(runtime, model, job))
        provider = model.provider
        agent.emit(
            "measured",
            load_ns=load_ns,
            load_was_cold=cold,
            first_inference_ns=first_ns,
            memory=memory.report(),
            gpu_peak_bytes=model.gpu_peak_bytes(),
            input_shapes=shapes,
            precision=model.precision,
            provider=provider,
            execution=dict(
                model.execution._asdict(),
                affinity_is_shared=len(cpus) > 1 and not runtime.binds_each_thread(job),
                cpu_fallback=cpu_fallback([], job, "nothing looked into it")
                if runtime.leaves_rest_to_the_cpu(job)
                else "",
            ),
            **fields,
        )
        agent.wait()
        if job["energy"]:
            run_for_energy(run, agent)
        # Memory that the model fits into once need not hold it twice.
        del run, model
    except runtime.errors() as error:
        raise runtime.fault(error, "run") from error
    agent.emit("reloaded", **load_again(runtime, job))
    agent.emit("passed", **look_into(runtime, job, arrays, provider, agent))


def runs_alone(runtime: Runtime, model: Model, job: Dict[str, Any]) -> bool:
    """Tell whether the calling thread is all that runs a model, so that what follows need not wait for anything to rest."""
    return model.execution.intra_op_threads == 1 and runtime.runs_on_its_threads_alone(job)


def load_again(runtime: Runtime, job: Dict[str, Any]) -> Dict[str, Any]:
    """Load the model's file once more, now cached; return the fields that tell of it."""
    gc.collect()
    try:
        start = perf_counter_ns()
        model = runtime.load(job["model_path"], job)
        spent_ns = perf_counter_ns() - start
        del model
    except Exception as error:
        reason = "the model could not be loaded a second time: {}".format(one_line(error))
        return {"warm_load_ns": None, "warm_load_absent_reason": reason}
    return {"warm_load_ns": spent_ns, "warm_load_absent_reason": ""}


def look_into(
    runtime: Runtime, job: Dict[str, Any], arrays: Dict[str, Any], provider: str, agent: Agent
) -> Dict[str, Any]:
    """Find out where the model's time goes and what ran it; return the fields that tell of it.

    Args:
        runtime: Has measured the model.
        job: May ask for the time of each layer; where it does not, only a choice of providers is looked into.
        arrays: The model's inputs.
        provider: The execution provider that the model was opened with.
        agent: Hears of the pass.
    """
    rows, reason = [], ""  # type: Tuple[List[Dict[str, Any]], str]
    asked, leaves_rest = job["profile"], runtime.leaves_rest_to_the_cpu(job)
    if asked or leaves_rest:
        agent.phase("profile")
        try:
            rows = runtime.profile(job["model_path"], job, arrays)
            reason = "" if rows else "the profiler saw no operators"
        except Exception as error:
            reason = "the profiler failed: {}".format(one_line(error))
    used = {row["provider"] for row in rows} if leaves_rest else set()
    return {
        "operators": rows if asked else [],
        "operators_absent_reason": reason if asked else "",
        "providers": sorted(used - {""}, key=lambda name: name != provider) or [provider],
        "cpu_fallback": cpu_fallback(rows, job, reason) if leaves_rest else "",
    }


def bind_to(cpus: Sequence[int]) -> None:
    """Bind the calling thread, and those it starts from now on, to these processors.

    Raises:
        JobError: invalid_spec where the system refuses.
    """
    try:
        os.sched_setaffinity(0, cpus)
    except (AttributeError, OSError) as error:
        raise JobError(
            "invalid_spec",
            "cannot bind threads to the processors {}: {}; choose others or leave cpu_affinity empty".format(
                ", ".join(map(str, cpus)), one_line(error)
            ),
        ) from error


def check_precision(model: Model, wanted: Optional[str]) -> None:
    """Compare what the runtime says of a model with what the spec expects.

    Raises:
        JobError: invalid_spec where they differ.
    """
    if wanted is not None and model.precision is not None and wanted != model.precision:
        raise JobError(
            "invalid_spec",
            "the model is in {}, the spec asks for {}; convert the model first".format(
                model.precision, wanted
            ),
        )


def measure_latency(
    run: Callable[[], object], job: Dict[str, Any], agent: Agent, memory: Memory, alone: bool
) -> Dict[str, Any]:
    """Warm up and take the samples of a model, which may have one thread alone; return the fields that tell of them."""
    rules = RULES[job["mode"]]
    warm, sampling = WarmUp(rules), Sampling(rules, job["measure_limit_s"])
    agent.phase("warm_up")
    gc.collect()
    gc.disable()
    try:
        warmup = timed_runs(run, warm.over)
        memory.mark()
        agent.phase("canary")
        canary, absent_reason = memory.exclude(lambda: start_canary(job["canary_path"], job, alone))
        while True:
            begin_s = time.monotonic()
            canary_ns = canary.look() if canary is not None and job["look"] else None
            agent.emit("settled", canary_ns=canary_ns, looked_s=time.monotonic() - begin_s)
            word = agent.run_meanwhile(run)[0]
            if word != "again":
                break
            time.sleep(AGAIN_PAUSE_S)
            repeat(run, AGAIN_WARMUP_S, 1)
        repeat(run, QUIET_S, 1)
        typical_ns = median(warmup[-WARMUP_WINDOW:])
        limits = [float(number) for number in word.split()[1:]]
        patience = Patience(*limits) if limits else None
        series = Series(run, canary, typical_ns, rules.turn_s, patience, agent.phase)
        series.take(sampling.over)
        agent.emit("sampled")
        agent.run_meanwhile(run)
    finally:
        gc.enable()
    memory.marks[-1] = max(memory.marks[-1], memory.high_water() - memory.foreign)
    return {
        "warmup_ns": list(warmup),
        "samples_ns": list(series.samples_ns),
        "groups_ns": list(series.groups_ns),
        "group_runs": series.group_runs,
        "turn_ends": series.turn_ends,
        "canary_ns": canary.turns if canary is not None else [],
        "canary_absent_reason": absent_reason,
        "longest_stall_ns": series.longest_stall_ns,
        "runs": series.runs,
        "paused_s": series.paused_s,
        "vain_s": series.vain_s,
        "involuntary_switches": series.involuntary_switches,
        "major_faults": series.major_faults,
        "warmup_capped": warm.capped,
        "interval_reached": sampling.reached,
    }


def run_for_energy(run: Callable[[], object], agent: Agent) -> None:
    """Be quiet, run a loop of inferences, be quiet: the agent reads the board's power meanwhile."""
    agent.phase("energy")
    agent.emit("idle")
    agent.wait()
    begin_s = time.monotonic()
    agent.emit("running", begin_s=begin_s)
    _, inferences = agent.run_meanwhile(run)
    agent.emit("stopped", end_s=time.monotonic(), inferences=inferences)
    agent.wait()


def claim_stdout() -> TextIO:
    """Keep standard output for the protocol: whatever the runtime prints goes to standard error instead."""
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # What a TorchScript model prints goes through here, and would fail the model once the file is full.
    sys.stdout = open(os.devnull, "w")
    return protocol


def load_sandbox() -> Any:
    """Return the module beside this file. Its folder, the agent's package, is not for imports."""
    import importlib.util

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sandbox.py")
    spec = cast(Any, importlib.util.spec_from_file_location("edgenas_sandbox", path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def enter_sandbox(hidden: Sequence[str], brought: Sequence[str]) -> Any:
    """Return the sandbox that this process is in from now on; what Python, it and a third party's file need stays."""
    needed = [sys.prefix, sys.base_prefix, os.path.abspath(__file__)]
    # Not all that is on the path of imports is a file.
    needed += [os.path.abspath(path) for path in list(sys.path) + list(brought) if os.path.exists(path)]
    return load_sandbox().Sandbox(hidden, needed, tempfile.gettempdir())


def seal(sandbox: Any, runtime: Runtime, job: Dict[str, Any]) -> None:
    """Leave to the model no more than it needs, and change the job's path of it to where it can still be opened."""
    alone = runtime.runs_on_its_threads_alone(job)
    job["model_path"] = sandbox.reveal(job["model_path"])
    threads = job["threads"] if alone else os.cpu_count() or 1
    sandbox.seal(job["memory_limit_bytes"], job["time_left_s"] * threads, accelerated=not alone)


def read_job() -> Tuple[Optional[Dict[str, Any]], bytes]:
    """Return the job and what came behind it, or None where the input ended first."""
    received = b""
    while b"\n" not in received:
        piece = os.read(0, 65536)
        if not piece:
            return None, b""
        received += piece
    line, rest = received.split(b"\n", 1)
    return cast(Dict[str, Any], json.loads(line.decode("utf-8"))), rest


def main() -> None:
    """Serve one job with the runtime named on the command line."""
    # This file's folder is the agent's package: none of its files may shadow what the runtime imports.
    own_folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != own_folder]
    # A pool of BLAS threads for drawing random numbers would only blur the memory figures.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # From 1.29 on ONNX Runtime reports to its maker unless told not to: from a thread of its own, under an id
    # that it leaves on the board. Neither belongs into a measurement.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # On standard error they would stand where the agent looks for the last word of a worker that died.
    warnings.simplefilter("ignore")
    offer_to_the_oom_killer()
    limit_files(FILE_LIMIT_BYTES)
    name, brought = sys.argv[1], [path for path in sys.argv[2:3] if path]
    sandbox = enter_sandbox(sys.argv[3:], brought)
    agent = Agent(claim_stdout())
    if not name:
        sandbox.seal(None, 0, accelerated=False)
        agent.emit("sealed", missing=sandbox.missing)
        return
    try:
        if brought:
            # A third party's: from __main__ it imports what its class derives from, and RUNTIMES, to which it adds it.
            import runpy

            runpy.run_path(brought[0])
        runtime = RUNTIMES[name]()
    except ImportError as error:
        agent.emit("unavailable", message=one_line(error))
        return
    agent.emit(
        "ready",
        library=runtime.library,
        version=runtime.version,
        providers=runtime.providers(),
        missing=sandbox.missing,
    )
    job, rest = read_job()
    if job is None:
        return
    threading.Thread(target=agent.listen, args=(rest,), daemon=True).start()
    try:
        seal(sandbox, runtime, job)
        measure(runtime, job, agent)
    except JobError as error:
        agent.emit("failed", kind=error.kind, message=str(error))
    except MemoryError:
        agent.emit(
            "failed",
            kind="out_of_memory",
            message="the model needs more memory than the board has left; measure a smaller model or batch",
        )


if __name__ == "__main__":
    main()
