"""A small table whose best trade-offs are known: 3 choices of 4 options, accuracy against latency on two devices."""

import gzip
import itertools
from pathlib import Path

HEADER = "choice.a,choice.b,choice.width,macs_m,params_m,accuracy,latency_ms@pi4,latency_ms@pi5,note_count"


def lines() -> list[str]:
    """Return the table's lines: accuracy grows with every choice, and so does latency, but not alike."""
    rows = [HEADER]
    for a, b, width in itertools.product("pqrs", "wxyz", (8, 16, 32, 64)):
        strength = "pqrs".index(a) + 2 * "wxyz".index(b) + width / 16
        cost = 1 + 3 * "pqrs".index(a) ** 2 + "wxyz".index(b) + width / 8
        accuracy = 90 * strength / (2 + strength)
        rows.append(
            f"{a},{b},{width},{cost * 7:.4f},{width / 10},{accuracy:.4f},{cost:.4f},{cost / 2 + width:.4f},3"
        )
    return rows


def write_table(path: Path) -> Path:
    """Write the table and return its path, compressed where the name ends in .gz."""
    text = "\n".join(lines()) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path
