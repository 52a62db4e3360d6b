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
from typing import IO

from device_agent.benchmark import ModelFormat
from device_agent.errors import ModelCacheError, ModelMismatchError, ModelNotFoundError, StorageFullError

logger = logging.getLogger(__name__)

PARTIAL_SUFFIX = ".part"
MIB = 1 << 20


class ModelStore:
    """Files named by their sha256. The oldest-used go first where the cache or the disk is full; held ones never go.

    What an upload announces is set aside from its begin on, so that uploads at one time never exceed the cache's
    limit or the disk together.
    """

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
        self._uploads: set[Upload] = set()
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(f"*{PARTIAL_SUFFIX}"):
            stale.unlink()
        # A board without a clock of its own wakes up in the past.
        self._last_use_ns = max((path.stat().st_mtime_ns for path in self._files()), default=0)

    def size_bytes(self, sha256: str) -> int | None:
        """Return the size of a model, or None where it is not held. Asking counts as using it.

        Raises:
            ModelCacheError: If the cache cannot be read or written.
        """
        with self._lock, self._on_disk():
            path = self._find(sha256)
            if path is None:
                return None
            self._use(path)
            return path.stat().st_size

    def hold(self, sha256: str) -> Path:
        """Return a model's file, and keep it in the cache until `let_go`.

        Raises:
            ModelNotFoundError: If the cache does not have it.
            ModelCacheError: If the cache cannot be read or written.
        """
        with self._lock, self._on_disk():
            path = self._find(sha256)
            if path is None:
                raise ModelNotFoundError(
                    f"this agent holds no model with sha256 '{sha256}'; upload it with UploadModel first"
                )
            self._use(path)
            self._holders[sha256] += 1
            return path

    def let_go(self, sha256: str) -> None:
        """Undo one `hold`."""
        with self._lock:
            self._holders[sha256] -= 1
            if not self._holders[sha256]:
                del self._holders[sha256]

    @contextlib.contextmanager
    def receive(self, sha256: str, model_format: ModelFormat, size_bytes: int) -> Iterator["Upload"]:
        """Yield an upload to write to; on a clean exit the model is checked and kept, else nothing remains.

        Args:
            sha256: Digest of the whole file.
            model_format: Names the file, for whoever looks into the folder. What reads it is for each job to say:
                who announced the wrong format once can still measure the same bytes in the right one.
            size_bytes: Size of the whole file.

        Raises:
            StorageFullError: If the model exceeds a limit, the cache or the disk.
            ModelMismatchError: If what was written is not what was announced.
            ModelCacheError: If the cache cannot be read or written.
        """
        if size_bytes > self.model_limit_bytes:
            raise StorageFullError(
                f"the model has {size_bytes} bytes, this agent accepts {self.model_limit_bytes}; "
                "measure a smaller model or raise --cache-limit-mb"
            )
        with self._on_disk(), self._partial_file() as file:
            upload = Upload(file.fileno(), sha256, size_bytes)
            with self._room_for(upload):
                yield upload
                upload.check()
                # A board loses power at any moment: the name must never point to half a file.
                os.fsync(file.fileno())
                self._keep(Path(file.name), upload, model_format)

    def _find(self, sha256: str) -> Path | None:
        paths = (self._folder / f"{sha256}.{model_format.value}" for model_format in ModelFormat)
        return next((path for path in paths if path.exists()), None)

    def _use(self, path: Path) -> None:
        """Note that a model is used now: later than any other, also within one tick of the file system's clock."""
        self._last_use_ns = max(time.time_ns(), self._last_use_ns + 1)
        os.utime(path, ns=(self._last_use_ns, self._last_use_ns))

    def _files(self) -> list[Path]:
        return [path for model_format in ModelFormat for path in self._folder.glob(f"*.{model_format.value}")]

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Tell callers what the disk refuses.

        Raises:
            StorageFullError: If the disk is full.
            ModelCacheError: If anything else is wrong with it.
        """
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full("it takes nothing more") from error
            raise ModelCacheError(
                f"the model cache '{self._folder}' cannot be used: {error.strerror}; make sure that the agent's user "
                "may write there and that the disk is sound, or move the state with --state-dir"
            ) from error

    @contextlib.contextmanager
    def _partial_file(self) -> Iterator[IO[bytes]]:
        with tempfile.NamedTemporaryFile(
            dir=self._folder, suffix=PARTIAL_SUFFIX, buffering=0, delete=False
        ) as file:
            try:
                yield file
            finally:
                try:
                    Path(file.name).unlink(missing_ok=True)
                except OSError as error:
                    # What ended the upload matters more.
                    logger.warning(
                        "cannot remove '%s', the next start tries again: %s", file.name, error.strerror
                    )

    def _keep(self, partial: Path, upload: "Upload", model_format: ModelFormat) -> None:
        with self._lock:
            # Uploaded twice at one time: the bytes are the same, and held once.
            path = self._find(upload.sha256) or self._folder / f"{upload.sha256}.{model_format.value}"
            partial.replace(path)
            # From here on the file itself counts.
            self._uploads.discard(upload)
            self._use(path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @contextlib.contextmanager
    def _room_for(self, upload: "Upload") -> Iterator[None]:
        with self._lock:
            self._make_room(upload.size_bytes)
            self._uploads.add(upload)
        try:
            yield
        finally:
            with self._lock:
                self._uploads.discard(upload)

    def _make_room(self, size_bytes: int) -> None:
        """Drop what may go until a model fits beside the others and those on their way, or drop nothing.

        Raises:
            StorageFullError: If it would not fit even then.
        """
        files = [(path, path.stat()) for path in self._files()]
        idle = [(path, status) for path, status in files if path.stem not in self._holders]
        idle_bytes = sum(status.st_size for _, status in idle)
        kept_bytes = sum(status.st_size for _, status in files)
        announced_bytes = sum(upload.size_bytes for upload in self._uploads)
        over_limit_bytes = kept_bytes + announced_bytes + size_bytes - self._cache_limit_bytes
        if over_limit_bytes > idle_bytes:
            raise StorageFullError(
                f"the model cache of {self._cache_limit_bytes // MIB} MiB is full of models that wait to be "
                "measured or are on their way; upload again when some are done or raise --cache-limit-mb"
            )
        free_bytes = shutil.disk_usage(self._folder).free - sum(
            upload.missing_bytes for upload in self._uploads
        )
        over_disk_bytes = size_bytes - free_bytes
        if over_disk_bytes > idle_bytes:
            raise _disk_full(f"the model needs {size_bytes} bytes, {max(0, free_bytes)} are free")
        excess = max(over_limit_bytes, over_disk_bytes)
        for path, status in sorted(idle, key=lambda entry: entry[1].st_mtime_ns):
            if excess <= 0:
                break
            path.unlink()
            excess -= status.st_size
            logger.info("dropped model %s from the cache to make room", path.stem)


class Upload:
    """One model on its way to the disk. Memory use does not depend on its size."""

    def __init__(self, descriptor: int, sha256: str, size_bytes: int) -> None:
        self.sha256 = sha256
        self.size_bytes = size_bytes
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._received_bytes = 0

    @property
    def missing_bytes(self) -> int:
        """What is still to come. May be asked from any thread."""
        return max(0, self.size_bytes - self._received_bytes)

    def write(self, chunk: bytes) -> None:
        """Append a piece of the file.

        Raises:
            ModelMismatchError: If the file grows beyond what was announced.
            OSError: If the disk does not take it.
        """
        self._received_bytes += len(chunk)
        if self._received_bytes > self.size_bytes:
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
        if self._received_bytes != self.size_bytes:
            raise self._wrong_size()
        if self._digest.hexdigest() != self.sha256:
            raise ModelMismatchError(
                f"the uploaded bytes have sha256 '{self._digest.hexdigest()}', the header announced "
                f"'{self.sha256}'; the file changed or was damaged on the way, upload it again"
            )

    def _wrong_size(self) -> ModelMismatchError:
        return ModelMismatchError(
            f"received {self._received_bytes} bytes of a model announced with {self.size_bytes}; "
            "put the size of the whole file into the header"
        )


def _disk_full(why: str) -> StorageFullError:
    return StorageFullError(
        f"the disk of the agent's state directory is full: {why}; free some or move the state with --state-dir"
    )
