"""Reading the kernel's small text files: what is absent or unreadable is None."""

import re
from pathlib import Path


def read_text(path: Path) -> str | None:
    """Return a kernel file's text without surrounding blanks and NULs; None where there is none to read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # Absent, or a sensor that answers with EAGAIN or ENODATA: either way the board does not tell.
        return None
    return text.strip("\0 \t\n") or None


def read_number(path: Path) -> float | None:
    """Return the number that a kernel file holds; None where there is none."""
    return _number(read_text(path))


def read_integer(path: Path) -> int | None:
    """Return the whole number that a kernel file holds; None where there is none."""
    text = read_text(path)
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def find_number(pattern: str, text: str | None) -> float | None:
    """Return the number that the first group of `pattern` catches; `^` and `$` match at every line."""
    return _number(find_text(pattern, text))


def find_text(pattern: str, text: str | None) -> str | None:
    """Return what the first group of `pattern` catches; `^` and `$` match at every line."""
    match = re.search(pattern, text or "", re.MULTILINE)
    return match.group(1) if match else None


def cpu_number(path: Path) -> int:
    """Return N for a path below `sys/devices/system/cpu/cpuN`."""
    folder = next(part for part in reversed(path.parts) if re.fullmatch(r"cpu\d+", part))
    return int(folder.removeprefix("cpu"))


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"-?\d+(\.\d+)?", text):
        return None
    return float(text)
