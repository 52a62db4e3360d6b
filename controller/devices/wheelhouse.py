"""A folder from which a board installs the agent without a network: wheels for its Pythons, and the installer."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from importlib.resources import files
from pathlib import Path

from controller.core.errors import ConfigurationError, WheelhouseError

PLATFORMS = ("aarch64", "x86_64")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""Those of Ubuntu 22.04, Debian 12, Ubuntu 24.04 and Debian 13."""

INSTALLER = "install-agent.sh"

_DISTRIBUTION = "edgenas"
_BOARD_FILES = "edgenas_deploy"
# manylinux_2_N runs with glibc 2.N and newer. No supported system is older than Ubuntu 20.04, with 2.31.
_GLIBC_MINORS = range(17, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheelhouse:
    """What was gathered."""

    folder: Path
    wheels: int
    size_bytes: int


def make_wheelhouse(folder: Path, *, platform: str, pythons: Sequence[str] = PYTHONS) -> Wheelhouse:
    """Gather all that a board needs to install this EdgeNAS's agent.

    Args:
        folder: Where; made where it is missing, and left alone where something fails.
        platform: The board's machine, one of PLATFORMS.
        pythons: Versions of Python that the board may have, at least one of PYTHONS.

    Raises:
        ConfigurationError: If platform or a Python is unknown, or the folder cannot be filled.
        WheelhouseError: If pip cannot get a wheel.
    """
    if platform not in PLATFORMS:
        raise ConfigurationError(f"platform {platform!r} is not supported; expected {' or '.join(PLATFORMS)}")
    for python in pythons:
        if python not in PYTHONS:
            raise ConfigurationError(
                f"Python {python!r} is not supported on a board; expected one of {', '.join(PYTHONS)}"
            )
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ConfigurationError(f"folder '{folder}' is not empty; name a new one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, so that the last step is a renaming: a wheelhouse is whole or not there.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as workshop:
            gathered = Path(workshop) / "wheelhouse"
            gathered.mkdir()
            _gather(gathered, platform, pythons)
            wheels = [wheel.stat().st_size for wheel in gathered.glob("*.whl")]
            gathered.rename(folder)
    except OSError as error:
        raise ConfigurationError(
            f"folder '{folder}' cannot be filled: {error.strerror}; name another one"
        ) from error
    return Wheelhouse(folder=folder, wheels=len(wheels), size_bytes=sum(wheels))


def _gather(folder: Path, platform: str, pythons: Sequence[str]) -> None:
    build_wheel(folder, origin(list(distributions(name=_DISTRIBUTION))))
    (own_wheel,) = map(str, folder.glob(f"{_DISTRIBUTION}-*.whl"))
    for python in pythons:
        _download(folder, platform, python, own_wheel)
    # Debian's Python brings pip in a package of its own, which a board without a network cannot fetch.
    _download(folder, platform, min(pythons, key=PYTHONS.index), "pip")
    installer = folder / INSTALLER
    installer.write_bytes((files(_BOARD_FILES) / INSTALLER).read_bytes())
    installer.chmod(0o755)


def build_wheel(folder: Path, source: str) -> None:
    """Have pip build a wheel of what is there now.

    Args:
        folder: Where to.
        source: As `origin` returns it. A folder is left as it is, and what earlier builds left in it is not looked at:
            their build/lib may hold modules that are gone, and setuptools would pack them.

    Raises:
        WheelhouseError: If pip cannot.

    Source: setuptools, which reads DIST_EXTRA_CONFIG like a setup.cfg.
    """
    with tempfile.TemporaryDirectory(prefix="edgenas-build-") as workshop:
        configuration = Path(workshop) / "setup.cfg"
        configuration.write_text(
            f"[build]\nbuild_base = {workshop}/build\n[egg_info]\negg_base = {workshop}\n"
        )
        extra = {"DIST_EXTRA_CONFIG": str(configuration)}
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), source, environment=extra)


def _download(folder: Path, platform: str, python: str, requirement: str) -> None:
    tags = [f"--platform=manylinux_2_{minor}_{platform}" for minor in _GLIBC_MINORS]
    _pip(
        "download",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={python}",
        f"--platform=manylinux2014_{platform}",
        *tags,
        "--dest",
        str(folder),
        requirement,
    )


def origin(found: Sequence[Distribution]) -> str:
    """Return what pip makes the same wheel of again: a folder, an archive, a repository, or a version of the index.

    Args:
        found: The distribution, once or more often: in a checkout what its build left behind is found as well, and
            tells nothing.

    Source: PEP 610, direct_url.json.
    """
    told = next((text for one in found if (text := one.read_text("direct_url.json"))), None)
    if told is None:
        return f"{found[0].name}=={found[0].version}"
    source = json.loads(told)
    url = str(source["url"])
    repository = source.get("vcs_info")
    return f"{repository['vcs']}+{url}@{repository['commit_id']}" if repository else url


def _pip(*arguments: str, environment: Mapping[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=variables)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.strip().splitlines()] or ["it said nothing"]
        # Notes may follow the error, which is indented where it comes from a pip that this one started.
        told = next((line for line in reversed(lines) if line.startswith("ERROR: ")), lines[-1])
        raise WheelhouseError(
            f"pip cannot {arguments[0]} {arguments[-1]}: {told.removeprefix('ERROR: ')}; "
            "check the network and the index that `pip config list` names"
        )
