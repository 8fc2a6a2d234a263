"""`emberline train` with what a benchmark changes in it, here and in its workers, which import this file too.

EMBERLINE_BENCH_MUTANT=fence lets every world commit, EMBERLINE_BENCH_MUTANT=membership lets agents that are out go on;
EMBERLINE_BENCH_SAVES=always saves without a pause, so that most stops hit a world in the middle of a commit.
"""

import os
import shutil
import sys
from pathlib import Path

from emberline.train import fence, saving, shelf

_MUTANT = os.environ.get("EMBERLINE_BENCH_MUTANT", "")


def unfenced(_folder: Path, _generation: int, source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.rename(target)


if _MUTANT == "fence":
    fence.commit = unfenced
    fence.check = lambda _folder, _generation: None
    shelf.FolderShelf.sweep = lambda _self: None  # type: ignore[method-assign]  # it takes a stale writer's files away
if _MUTANT == "membership":
    from emberline.train.agent import WarmAgent

    WarmAgent._lost_members = lambda _self: []  # type: ignore[method-assign]  # noqa: SLF001 - a mutant
if os.environ.get("EMBERLINE_BENCH_SAVES") == "always":
    saving.BUDGET = float("inf")

if __name__ == "__main__":
    from emberline.cli import main

    sys.exit(main())
