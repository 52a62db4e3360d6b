"""How long a search may go on."""

import re
from dataclasses import dataclass

from controller.core.errors import ConfigurationError

_MOST = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a search ends: after so many evaluated candidates, or so many seconds."""

    trials: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Return the budget written as a number of candidates, or a time with unit s, m or h.

        Raises:
            ConfigurationError: If text is neither.
        """
        match = re.fullmatch(r"(?P<number>\d+(\.\d+)?)(?P<unit>[smh]?)", text.strip())
        number = float(match["number"]) if match else 0.0
        if match is None or not 0 < number < _MOST or (not match["unit"] and number != int(number)):
            raise ConfigurationError(
                f"budget {text!r} is not understood; expected a number of candidates such as 200, or a time such as 30m or 2h"
            )
        if not match["unit"]:
            return cls(trials=int(number))
        return cls(seconds=number * {"s": 1, "m": 60, "h": 3600}[match["unit"]])
