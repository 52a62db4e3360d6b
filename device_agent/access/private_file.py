"""Files that only the agent's user reads."""

import os
import tempfile
from pathlib import Path

DRAFT_PREFIX = ".draft-"


def write_private(path: Path, text: str) -> None:
    """Put a file in place that its owner alone reads; after a power cut it is the old one or the new one.

    Raises:
        OSError: If the disk does not take it.
    """
    # Made for its owner alone from the first moment on.
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=DRAFT_PREFIX, encoding="ascii", delete=False
    ) as draft:
        try:
            give_to_owner_of(path.parent, draft.fileno())
            draft.write(text)
            draft.flush()
            os.fsync(draft.fileno())
            Path(draft.name).replace(path)
        except OSError:
            Path(draft.name).unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def give_to_owner_of(folder: Path, descriptor: int) -> None:
    """Give a file that root has made to the agent's user: the folder's owner.

    Raises:
        OSError: If the disk does not take it.
    """
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def remove_drafts(folder: Path) -> None:
    """Remove what was being written when the process ended: it may hold a key.

    Raises:
        OSError: If it cannot be removed.
    """
    for draft in folder.glob(f"{DRAFT_PREFIX}*"):
        draft.unlink(missing_ok=True)
