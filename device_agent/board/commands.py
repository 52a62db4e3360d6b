"""The few programs that tell what no kernel file does, looked for below the root path like the files."""

import subprocess
from pathlib import Path

FOLDERS = ("usr/bin", "usr/sbin", "opt/vc/bin", "bin", "sbin")
LIMIT_S = 5.0


def find_tool(root: Path, name: str) -> Path | None:
    """Return a program below `root`, or None where it is not installed."""
    paths = (root / folder / name for folder in FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def run_tool(root: Path, name: str, *arguments: str) -> str | None:
    """Return what a program below `root` prints; None where it is missing, fails or does not end."""
    path = find_tool(root, name)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [str(path), *arguments], capture_output=True, text=True, errors="replace", timeout=LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
