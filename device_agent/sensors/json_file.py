"""Small JSON files of numbers that a user gives: a calibration, a model's coefficients."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from device_agent.errors import SensorError


def read_numbers(path: Path, keys: Sequence[str]) -> dict[str, float]:
    """Return the numbers of a JSON object that has exactly the given keys.

    Raises:
        SensorError: If the file is not readable or anything else.
    """
    expected = "{" + ", ".join(f'"{key}": NUMBER' for key in keys) + "}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SensorError(f"cannot read {path}: {error.strerror}; expected a file with {expected}") from error
    except ValueError as error:
        raise SensorError(f"{path} is not JSON; expected {expected}") from error
    if not isinstance(content, dict) or set(content) != set(keys):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise SensorError(f"{path} has {found or 'nothing'}; expected {expected}")
    for key, value in content.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise SensorError(f"{path} has {key} = {value!r}; expected a finite number")
    return {key: float(content[key]) for key in keys}
