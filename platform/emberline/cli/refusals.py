"""What the operating system refused (a folder that cannot be made, a full disk), in this project's words."""

import errno
import os
from pathlib import Path

from emberline.errors import EmberlineError

_ROOM = {errno.ENOSPC, errno.EDQUOT}
_RIGHTS = {errno.EACCES, errno.EPERM}
_AGAIN = "name another one, where files can be made"


def told(error: OSError) -> EmberlineError | None:
    """The error with its place and a hint, or None where it is not about a file, and so none of the user's doing."""
    reason = (error.strerror or str(error)).lower()
    if not isinstance(error.filename, str | bytes):
        is_full = error.errno in _ROOM
        return EmberlineError(reason, hint="make room, then give the same command again") if is_full else None
    path = Path(os.fsdecode(error.filename))
    if isinstance(error, IsADirectoryError):
        return EmberlineError("is a folder; a file is required", place=path)
    if isinstance(error, FileExistsError | NotADirectoryError):
        obstacle = next((one for one in (path, *path.parents) if one.exists()), path)
        if not obstacle.is_dir():
            return EmberlineError("is a file; a folder is required", place=obstacle, hint="name another folder")
    hint = "make room, then give the same command again" if error.errno in _ROOM else _AGAIN
    if error.errno in _RIGHTS:
        hint = f"user {os.geteuid()} may not; {_AGAIN}"
    return EmberlineError(f"cannot be read or written: {reason}", place=path, hint=hint)
