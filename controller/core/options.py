"""What a board is asked to do with a model, beyond which model and how thoroughly."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Precision(Enum):
    """Number format of a model's weights and activations."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8_QDQ = "int8_qdq"
    """8-bit integers, written as pairs of QuantizeLinear and DequantizeLinear."""


class InputData(Enum):
    """What a model's inputs are filled with."""

    RANDOM = "random"
    ZEROS = "zeros"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementOptions:
    """How to measure; the defaults leave every choice to the board.

    Attributes:
        threads: Threads inside one operator; 0 for the physical cores.
        input_shapes: Shapes for inputs whose axes the model leaves open, batch first.
        provider: Execution provider; empty for the CPU.
        batch_size: Size of open first axes that input_shapes does not name; 0 for 1.
        precision: What the model must have to be measured; None takes it as it is.
        input_data: What the inputs are filled with.
        seed: Of random input data.
        cpu_affinity: Processors to bind the threads to, one for each, which not every runtime can: then they share
            them. Empty lets the system place them.
        time_limit_s: Give up after so long on the board; 0 for the agent's own limit.
        most_attempts: Measure so often at most where flags say that something disturbed the figures; 0 for the agent's own number.
        profile: Also tell where the time goes, in a pass of its own.
        energy: Also measure energy, in a pass of its own.
        power_source: Where energy is read; empty for the best source.
        macs: Multiply-accumulates of one inference, for a modelled power source; None where nobody counted.
    """

    threads: int = 0
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    provider: str = ""
    batch_size: int = 0
    precision: Precision | None = None
    input_data: InputData = InputData.RANDOM
    seed: int = 0
    cpu_affinity: tuple[int, ...] = ()
    time_limit_s: float = 0.0
    most_attempts: int = 0
    profile: bool = False
    energy: bool = False
    power_source: str = ""
    macs: int | None = None
