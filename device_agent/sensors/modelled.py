"""Energy from a formula, where there is no sensor: joules = coefficients × (MACs, bytes).

    $ cat pi4.json
    {"picojoules_per_mac": 38.0, "picojoules_per_byte": 420.0}

The coefficients are the user's own, fitted on a board that has a meter; the agent brings none, since no
figure of a textbook is right for a board. No sensor is read, so this is no power source: nothing here knows
how much the board draws, and two models with the same counts get the same figure. It is used only when asked
for by its name, also on a board without a sensor: a battery that is being charged, or a chip that does not answer
today, would otherwise turn some of a search's figures into modelled ones. Everything it touches says `modelled`.

Source of the form: Horowitz 2014, "Computing's energy problem", ISSCC; Yang et al. 2017, "Designing
energy-efficient convolutional neural networks using energy-aware pruning", CVPR.
"""

from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import SensorError
from device_agent.sensors.json_file import read_numbers

NAME = "modelled"
MJ_PER_PJ = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyModel:
    """The formula's coefficients; `file` is where they come from."""

    picojoules_per_mac: float
    picojoules_per_byte: float
    file: str

    def __str__(self) -> str:
        """Return the formula for a person."""
        return f"{self.picojoules_per_mac:g} pJ/MAC + {self.picojoules_per_byte:g} pJ/byte ({self.file})"

    def energy_mj(self, *, macs: int | None, model_bytes: int) -> float:
        """Return what the formula says of one inference, beyond what the board draws when idle.

        Args:
            macs: Multiply-accumulates of one inference.
            model_bytes: Bytes of the model's weights, each of which is read once.

        Raises:
            SensorError: If nobody counted the MACs.
        """
        if not macs:
            raise SensorError(
                f"the power source {NAME!r} needs the multiply-accumulates of the model; the request gives none; name"
                f" it in the request (`edgenas bench --power-source {NAME}` then counts them) or give --macs"
            )
        picojoules = self.picojoules_per_mac * macs + self.picojoules_per_byte * model_bytes
        return picojoules * MJ_PER_PJ


def read_energy_model(path: Path) -> EnergyModel:
    """Return the formula that a user wrote down.

    Raises:
        SensorError: If the file holds none.
    """
    numbers = read_numbers(path, ("picojoules_per_mac", "picojoules_per_byte"))
    negative = [key for key, value in numbers.items() if value < 0]
    if negative or not any(numbers.values()):
        raise SensorError(f"{path} has no energy in it; expected coefficients of 0 or more, one above 0")
    return EnergyModel(
        picojoules_per_mac=numbers["picojoules_per_mac"],
        picojoules_per_byte=numbers["picojoules_per_byte"],
        file=path.name,
    )
