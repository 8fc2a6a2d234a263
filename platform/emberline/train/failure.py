"""A worker's last words: a failure that another try would meet again, told so that the launcher can show it."""

import os
import sys
from pathlib import Path

import orjson

from emberline import storage
from emberline.errors import EmberlineError
from emberline.train.fence import Fenced


def write_failure(folder: Path | None, error: EmberlineError) -> None:
    """Leaves the failure for our launcher, or prints it where another one started this worker."""
    rank = os.environ.get("RANK", "0")
    if folder is None:
        prefix = "" if "rank" in (error.place or "") else f"rank {rank}: "
        print(f"error: {prefix}{error}", file=sys.stderr, flush=True)
        return
    told: dict[str, object] = {"fact": error.fact or str(error), "place": error.place, "hint": error.hint}
    told["fenced"] = isinstance(error, Fenced)
    storage.write_bytes(folder / f"rank-{rank}.json", orjson.dumps(told))


def read_failure(folder: Path) -> EmberlineError | None:
    """The failure of the lowest rank that has one."""
    for path in sorted(folder.glob("rank-*.json")):
        told = orjson.loads(path.read_bytes())
        place, rank = told["place"] or "", path.stem.replace("-", " ")
        return EmberlineError(told["fact"], place=place if "rank" in place else f"{rank}: {place}", hint=told["hint"])
    return None


def fenced(folder: Path) -> list[Path]:
    """What was told, where all of it is that a newer world trains this run; else nothing."""
    paths = list(folder.glob("rank-*.json"))
    return paths if all(orjson.loads(path.read_bytes())["fenced"] for path in paths) else []
