"""The runtimes that the agent knows, and which of them a Python has.

A third party adds a runtime with an entry point of the group `edgenas.runtimes`, which names a `Runtime` with a
`worker_file`. docs/runtimes.md shows one.
"""

import json
import logging
import subprocess
from collections.abc import Mapping
from importlib.metadata import entry_points

from device_agent.benchmark import RuntimeDescription, UnavailableRuntime
from device_agent.errors import InvalidRequestError, RuntimeUnavailableError
from device_agent.runtimes.base import Runtime
from device_agent.runtimes.onnx import ONNX
from device_agent.runtimes.torchscript import TORCHSCRIPT
from device_agent.runtimes.worker_process import WorkerProcess, worker_environment
from device_agent.text import one_line, shown

logger = logging.getLogger(__name__)

ENTRY_POINTS = "edgenas.runtimes"
REASON_LIMIT = 500
LOOKUP_LIMIT_S = 60.0
# Asks a Python for a package without importing it: PyTorch alone takes seconds and 200 MB.
LOOKUP = """
import importlib.util, json, sys
found = importlib.util.find_spec(sys.argv[1]) is not None
try:
    from importlib.metadata import version
    known = version(sys.argv[1]) if found else ""
except Exception:
    known = ""
print(json.dumps([found, known]))
"""


OWN = (ONNX, TORCHSCRIPT)


def known_runtimes() -> tuple[Mapping[str, Runtime], tuple[UnavailableRuntime, ...]]:
    """Return every runtime by name, the agent's own first, and those of third parties that are left out."""
    known = {runtime.name: runtime for runtime in OWN}
    broken: list[UnavailableRuntime] = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            runtime = _checked(entry.load(), known)
        except Exception as error:
            # Whatever a stranger's package raises must not keep the agent from its own runtimes.
            reason = one_line(f"{entry.value} fails with {error!r}", REASON_LIMIT)
            reason += "; update the package that brings it, or remove it"
            logger.warning("runtime %s is left out: %s", entry.name, reason)
            broken.append(UnavailableRuntime(name=entry.name, reason=reason))
        else:
            known[runtime.name] = runtime
    return known, tuple(broken)


def _checked(brought: object, known: Mapping[str, Runtime]) -> Runtime:
    if not isinstance(brought, Runtime):
        raise TypeError(f"it is a {type(brought).__name__}, not a Runtime of device_agent.runtimes.base")
    if brought.name in known:
        raise ValueError(f"there is a runtime {brought.name!r} already")
    if brought.worker_file is None or not brought.worker_file.is_file():
        raise ValueError(f"its worker_file is {brought.worker_file}, which is no file")
    return brought


RUNTIMES, BROKEN = known_runtimes()


def provider_name(runtime: str, wanted: str) -> str:
    """Return a provider's name as its runtime has it, from that or the short name; empty stays empty.

    Raises:
        InvalidRequestError: If the runtime has no such provider in any build.
    """
    known = RUNTIMES[runtime].providers
    if not wanted or wanted in known.values():
        return wanted
    if wanted.lower() not in known:
        raise InvalidRequestError(
            f"spec.provider is '{shown(wanted)}'; runtime {runtime} knows {', '.join(known)}, leave it empty for the CPU"
        )
    return known[wanted.lower()]


def offered(description: RuntimeDescription) -> RuntimeDescription:
    """Return a description with those of the build's providers that EdgeNAS offers."""
    known = RUNTIMES[description.name].providers.values()
    return RuntimeDescription(
        name=description.name,
        library=description.library,
        version=description.version,
        providers=tuple(name for name in description.providers if name in known),
    )


def look_up(python: str, name: str) -> RuntimeDescription | UnavailableRuntime:
    """Return whether a Python has a runtime, without importing it: its providers are then not known yet."""
    runtime = RUNTIMES[name]
    try:
        done = subprocess.run(
            [python, "-c", LOOKUP, runtime.package],
            capture_output=True,
            text=True,
            timeout=LOOKUP_LIMIT_S,
            stdin=subprocess.DEVNULL,
            env=worker_environment(python),
        )
        # The last line: whatever else runs when this Python starts may print as well.
        found, version = json.loads((done.stdout.splitlines() or [""])[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return UnavailableRuntime(
            name=name, reason=f"'{python}' does not tell whether it has {runtime.package}: {error}"
        )
    if not found:
        return UnavailableRuntime(name=name, reason=f"'{python}' has no {runtime.package}; {runtime.remedy}")
    return RuntimeDescription(name=name, library=runtime.package, version=version, providers=())


def survey(python: str) -> tuple[tuple[RuntimeDescription, ...], tuple[UnavailableRuntime, ...]]:
    """Return the runtimes that a Python can import, by importing each, and those that it cannot."""
    found: list[RuntimeDescription] = []
    missing: list[UnavailableRuntime] = []
    for name, runtime in RUNTIMES.items():
        known = look_up(python, name)
        if isinstance(known, UnavailableRuntime):
            missing.append(known)
            continue
        try:
            worker = WorkerProcess(python, runtime)
            try:
                found.append(offered(worker.greet()))
            finally:
                worker.close()
        except RuntimeUnavailableError as error:
            missing.append(UnavailableRuntime(name=name, reason=str(error)))
    return tuple(found), (*missing, *BROKEN)
