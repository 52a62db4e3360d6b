"""The cache of models in the state directory, addressed by content."""

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from device_agent.benchmark import ModelFormat
from device_agent.errors import ModelMismatchError, ModelNotFoundError, StorageFullError

logger = logging.getLogger(__name__)

PARTIAL_SUFFIX = ".part"
MIB = 1 << 20


class ModelStore:
    """Files named by their sha256. The oldest-used go first where the cache is full; held ones never go."""

    def __init__(self, folder: Path, *, cache_limit_bytes: int, model_limit_bytes: int) -> None:
        """Open the cache and remove what interrupted uploads left.

        Raises:
            OSError: If the folder cannot be created or written.
        """
        self._folder = folder
        self._cache_limit_bytes = cache_limit_bytes
        self.model_limit_bytes = min(model_limit_bytes, cache_limit_bytes)
        self._lock = threading.Lock()
        self._holders: Counter[str] = Counter()
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(f"*{PARTIAL_SUFFIX}"):
            stale.unlink()
        # A board without a clock of its own wakes up in the past.
        self._last_use_ns = max((path.stat().st_mtime_ns for path in self._files()), default=0)

    def size_bytes(self, sha256: str) -> int | None:
        """Return the size of a model, or None where it is not held. Asking counts as using it."""
        with self._lock:
            found = self._find(sha256)
            if found is None:
                return None
            self._use(found[0])
            return found[0].stat().st_size

    def hold(self, sha256: str) -> tuple[Path, ModelFormat]:
        """Return a model's file and its format, and keep it in the cache until `let_go`.

        Raises:
            ModelNotFoundError: If the cache does not have it.
        """
        with self._lock:
            found = self._find(sha256)
            if found is None:
                raise ModelNotFoundError(
                    f"this agent holds no model with sha256 '{sha256}'; upload it with UploadModel first"
                )
            self._holders[sha256] += 1
            self._use(found[0])
            return found

    def let_go(self, sha256: str) -> None:
        """Undo one `hold`."""
        with self._lock:
            self._holders[sha256] -= 1
            if not self._holders[sha256]:
                del self._holders[sha256]

    @contextlib.contextmanager
    def receive(self, sha256: str, model_format: ModelFormat, size_bytes: int) -> Iterator["Upload"]:
        """Yield an upload to write to; on a clean exit the model is checked and kept, else nothing remains.

        Raises:
            StorageFullError: If the model exceeds a limit, the cache or the disk.
            ModelMismatchError: If what was written is not what was announced.
        """
        if size_bytes > self.model_limit_bytes:
            raise StorageFullError(
                f"the model has {size_bytes} bytes, this agent accepts {self.model_limit_bytes}; "
                "measure a smaller model or raise --cache-limit-mb"
            )
        free_bytes = shutil.disk_usage(self._folder).free
        if size_bytes > free_bytes:
            raise self._disk_full(size_bytes, free_bytes)
        with tempfile.NamedTemporaryFile(
            dir=self._folder, suffix=PARTIAL_SUFFIX, buffering=0, delete=False
        ) as file:
            partial = Path(file.name)
            try:
                upload = Upload(file.fileno(), sha256, size_bytes)
                yield upload
                upload.check()
                # A board loses power at any moment: the name must never point to half a file.
                os.fsync(file.fileno())
                self._keep(partial, sha256, model_format, size_bytes)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise self._disk_full(size_bytes, shutil.disk_usage(self._folder).free) from error
            finally:
                partial.unlink(missing_ok=True)

    def _path(self, sha256: str, model_format: ModelFormat) -> Path:
        return self._folder / f"{sha256}.{model_format.value}"

    def _find(self, sha256: str) -> tuple[Path, ModelFormat] | None:
        paths = ((self._path(sha256, model_format), model_format) for model_format in ModelFormat)
        return next((found for found in paths if found[0].exists()), None)

    def _use(self, path: Path) -> None:
        """Note that a model is used now: later than any other, also within one tick of the file system's clock."""
        self._last_use_ns = max(time.time_ns(), self._last_use_ns + 1)
        os.utime(path, ns=(self._last_use_ns, self._last_use_ns))

    def _files(self) -> list[Path]:
        return [path for model_format in ModelFormat for path in self._folder.glob(f"*.{model_format.value}")]

    def _disk_full(self, size_bytes: int, free_bytes: int) -> StorageFullError:
        return StorageFullError(
            f"the disk of the agent's state directory is full: the model needs {size_bytes} bytes, "
            f"{free_bytes} are free; free some or move the state with --state-dir"
        )

    def _keep(self, partial: Path, sha256: str, model_format: ModelFormat, size_bytes: int) -> None:
        with self._lock:
            found = self._find(sha256)
            if found is None:
                self._make_room(size_bytes)
            # The same bytes under another format: the first word stands, and its file is not doubled.
            path = found[0] if found is not None else self._path(sha256, model_format)
            partial.replace(path)
            self._use(path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _make_room(self, size_bytes: int) -> None:
        files = [(path, path.stat()) for path in self._files()]
        excess = sum(status.st_size for _, status in files) + size_bytes - self._cache_limit_bytes
        idle = [(path, status) for path, status in files if path.stem not in self._holders]
        if excess > sum(status.st_size for _, status in idle):
            raise StorageFullError(
                f"the model cache of {self._cache_limit_bytes // MIB} MiB is full of models that wait to be "
                "measured; upload again when some are done or raise --cache-limit-mb"
            )
        for path, status in sorted(idle, key=lambda entry: entry[1].st_mtime_ns):
            if excess <= 0:
                break
            path.unlink()
            excess -= status.st_size
            logger.info("dropped model %s from the cache to make room", path.stem)


class Upload:
    """One model on its way to the disk. Memory use does not depend on its size."""

    def __init__(self, descriptor: int, sha256: str, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._sha256 = sha256
        self._size_bytes = size_bytes
        self._digest = hashlib.sha256()
        self._received_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append a piece of the file.

        Raises:
            ModelMismatchError: If the file grows beyond what was announced.
            OSError: If the disk does not take it.
        """
        self._received_bytes += len(chunk)
        if self._received_bytes > self._size_bytes:
            raise self._wrong_size()
        self._digest.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def check(self) -> None:
        """Compare what was received with what was announced.

        Raises:
            ModelMismatchError: If the size or the sha256 differs.
        """
        if self._received_bytes != self._size_bytes:
            raise self._wrong_size()
        if self._digest.hexdigest() != self._sha256:
            raise ModelMismatchError(
                f"the uploaded bytes have sha256 '{self._digest.hexdigest()}', the header announced "
                f"'{self._sha256}'; the file changed or was damaged on the way, upload it again"
            )

    def _wrong_size(self) -> ModelMismatchError:
        return ModelMismatchError(
            f"received {self._received_bytes} bytes of a model announced with {self._size_bytes}; "
            "put the size of the whole file into the header"
        )
