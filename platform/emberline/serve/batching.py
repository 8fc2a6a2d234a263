"""Batches without waiting: one instruction of TorchServe's front end, changed as java loads it.

With `maxBatchDelay` 0 TorchServe 0.12.0 should hand a worker what waits for it. It hands over at most two requests:
after each one that it adds, `Model.pollBatch` stops unless time is *left*, and of a delay of 0 nothing ever is. Here it
stops when time is *overdrawn* (`ifgt` becomes `ifge`). A lone request then goes out at once, and while a worker
computes, the next batch gathers by itself: the busier the server, the fuller the batch, with no delay to choose.

Only the very class that was looked at is changed, into a folder that stands before TorchServe's own on the class path.
"""

import hashlib
import zipfile
from pathlib import Path

from emberline.runlog import warn

CLASS = "org/pytorch/serve/wlm/Model.class"
KNOWN_SHA256 = "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff"
# maxDelay (a long in local variable 6) compared with 0: go on if greater, else leave the loop
_STOP_UNLESS_LEFT = bytes.fromhex("16 06 09 94 9d 00 06 a7 00 09")
_STOP_WHEN_OVERDRAWN = bytes.fromhex("16 06 09 94 9c 00 06 a7 00 09")


def class_path(site: Path, work: Path, *, batch_delay_ms: int, take_waiting: bool) -> tuple[str, ...]:
    """Class path of the front end: a changed class first where the settings ask for it and the version allows it."""
    stock = f"{site}/ts/frontend/*"
    if batch_delay_ms or not take_waiting:
        return (stock,)
    (jar,) = (site / "ts" / "frontend").glob("model-server*.jar")
    changed = change(zipfile.ZipFile(jar).read(CLASS))
    if changed is None:
        warn(f"{jar} is not TorchServe 0.12.0's: with serve.batch_delay_ms 0 a batch has at most two requests")
        return (stock,)
    target = work / "classes" / CLASS
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(changed)
    return str(work / "classes"), stock


def change(content: bytes) -> bytes | None:
    """The class that takes all that waits; None for any other content than that of TorchServe 0.12.0."""
    if hashlib.sha256(content).hexdigest() != KNOWN_SHA256:
        return None
    return content.replace(_STOP_UNLESS_LEFT, _STOP_WHEN_OVERDRAWN)
