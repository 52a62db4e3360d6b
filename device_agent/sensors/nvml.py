"""An NVIDIA graphics card, through the library that its driver brings: NVML, libnvidia-ml.so.1.

    $ nvidia-smi --query-gpu=name,power.draw --format=csv,noheader
    NVIDIA GeForce RTX 3060, 23.57 W

Called by ctypes: nvmlDeviceGetPowerUsage (mW) and, from Volta on, nvmlDeviceGetTotalEnergyConsumption (mJ
since the driver was loaded, no wrap). The power is that of the card with its memory. From Ampere on (but for
GA100) it is a mean over about 1 s, so what matters comes from the energy counter wherever there is one. It is
the card alone: the processor that feeds it is not in it.

Source: docs.nvidia.com/deploy/nvml-api, group nvmlDeviceQueries; nvml.h.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.errors import SensorError
from device_agent.sensors.base import PowerMeter, Reading, Scope, SensorMissingError, trial_reading

LIBRARY = "libnvidia-ml.so.1"
FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/aarch64-linux-gnu/nvidia",
    "usr/lib64",
    "usr/lib",
    "usr/lib/wsl/lib",
)
SUCCESS = 0
NOT_SUPPORTED = 3
NAME_SIZE = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvml:
    """One graphics card.

    Attributes:
        index: Which, as nvidia-smi counts; empty for the only one.
    """

    index: str = ""
    scope: Scope = field(default=Scope.GPU, init=False)
    calibration: str = field(default="", init=False)

    @property
    def name(self) -> str:
        """`nvml`, and the card if one was asked for: `nvml:0`."""
        return f"nvml:{self.index}" if self.index else "nvml"

    def absent_reason(self, root: Path) -> str | None:
        """Return why there is no reading; None where there is one."""
        return trial_reading(self, root)

    def open(self, root: Path) -> PowerMeter:
        """Return a meter of one card.

        Raises:
            SensorMissingError: If no driver is installed.
            SensorError: If it does not work, or several cards could be meant.
        """
        path = next((path for folder in FOLDERS if (path := root / folder / LIBRARY).exists()), None)
        if path is None:
            raise SensorMissingError(
                f"no {LIBRARY} below {root / 'usr/lib'}; it comes with NVIDIA's driver for graphics cards;"
                " install that where there is one"
            )
        library = _Library(path)
        try:
            return NvmlMeter(library, _choose(library, self.index))
        except SensorError:
            library.close()
            raise


class NvmlMeter:
    """Reads one card."""

    def __init__(
        self, library: "_Library", index: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take over the library.

        Raises:
            SensorError: If the card does not answer.
        """
        self._library = library
        self._device = library.device(index)
        self._clock = clock
        self.covers = f"{library.device_name(self._device)} (GPU {index})"
        self._start_mj = library.energy_mj(self._device)

    def read(self) -> Reading:
        """Return the card's power, and its energy where it counts that.

        Raises:
            SensorError: If it does not tell.
        """
        power_mw = self._library.power_mw(self._device)
        energy_mj = self._library.energy_mj(self._device)
        since_mj = None if energy_mj is None or self._start_mj is None else energy_mj - self._start_mj
        if (energy_mj is None) != (self._start_mj is None) or (since_mj is not None and since_mj < 0):
            raise SensorError(f"the energy counter of {self.covers} was reset; measure again")
        return Reading(time_s=self._clock(), power_mw=float(power_mw), energy_mj=since_mj)

    def close(self) -> None:
        """Let go of the driver."""
        self._library.close()


def _choose(library: "_Library", wanted: str) -> int:
    count = library.device_count()
    names = ", ".join(f"nvml:{index}" for index in range(count))
    if count == 0:
        raise SensorError("NVIDIA's driver finds no card; check with nvidia-smi")
    if wanted and wanted not in map(str, range(count)):
        raise SensorError(f"no graphics card {wanted!r}; expected one of {names}")
    if not wanted and count > 1:
        raise SensorError(f"{count} graphics cards could run the model; name the one: {names}")
    return int(wanted or 0)


class _Library:
    """The few functions of NVML that are needed; each failure is a SensorError."""

    def __init__(self, path: Path) -> None:
        try:
            self._nvml = ctypes.CDLL(str(path))
        except OSError as error:
            raise SensorError(f"cannot load {path}: {error}; reinstall NVIDIA's driver") from error
        self._call("nvmlInit_v2")

    def close(self) -> None:
        # The last reading is in hand by now: a failure to say goodbye changes nothing.
        self._nvml.nvmlShutdown()

    def device_count(self) -> int:
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        return count.value

    def device(self, index: int) -> ctypes.c_void_p:
        device = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
        return device

    def device_name(self, device: ctypes.c_void_p) -> str:
        name = ctypes.create_string_buffer(NAME_SIZE)
        self._call("nvmlDeviceGetName", device, name, ctypes.c_uint(NAME_SIZE))
        return name.value.decode(errors="replace")

    def power_mw(self, device: ctypes.c_void_p) -> int:
        power = ctypes.c_uint()
        self._call("nvmlDeviceGetPowerUsage", device, ctypes.byref(power))
        return power.value

    def energy_mj(self, device: ctypes.c_void_p) -> int | None:
        """Return the energy since the driver was loaded; None of a card that does not count it."""
        energy = ctypes.c_ulonglong()
        code = self._call(
            "nvmlDeviceGetTotalEnergyConsumption",
            device,
            ctypes.byref(energy),
            accepted=(SUCCESS, NOT_SUPPORTED),
        )
        return energy.value if code == SUCCESS else None

    def _call(self, name: str, *arguments: object, accepted: tuple[int, ...] = (SUCCESS,)) -> int:
        try:
            function = getattr(self._nvml, name)
        except AttributeError as error:
            raise SensorError(f"NVIDIA's driver has no {name}; update the driver") from error
        code = int(function(*arguments))
        if code not in accepted:
            raise SensorError(f"{name} failed: {self._error_text(code)}; check with nvidia-smi")
        return code

    def _error_text(self, code: int) -> str:
        function = self._nvml.nvmlErrorString
        function.restype = ctypes.c_char_p
        text = function(code)
        return text.decode(errors="replace") if text else f"code {code}"
