"""Checkpoints damaged at random, in a folder or an object store: is all of it caught, and an older one loaded?

A trial is a hundred damages to the newest of two checkpoints: a bit flipped, the end cut off, a file gone, a file that
does not belong, two files' contents swapped.

The mutant must turn it red (hashes are not compared):

    EMBERLINE_BENCH_MUTANT=hash python benchmarks/suite.py train ONLY=corruptions FRESH=1
"""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import torch

from emberline import paper
from emberline.train.checkpoint import Checkpoints, Skipped

TARGET = "1,000 tried, all caught, the previous checkpoint loaded"
TRIALS = 10
DAMAGES = 100  # of a trial


def trial(folder: Path, number: int) -> dict[str, Any]:
    if os.environ.get("EMBERLINE_BENCH_MUTANT") == "hash":
        _forget_hashes()
    chance = random.Random(number)
    location = f"file://{folder}/bucket" if number % 2 else None
    one = Checkpoints(folder / "run", digest="d", keep=3, location=location)
    generation = one.claim_generation()
    for step in (1, 2):
        one.save(step, tensors(step), seed=0, generation=generation)
    newest = next(path for path in folder.rglob("step-000002*") if path.is_dir())
    kept = folder / "kept"
    shutil.copytree(newest, kept)
    outcomes: dict[str, dict[str, int]] = {}
    for _ in range(DAMAGES):
        kind = damage(newest, chance)
        skipped: list[Skipped] = []
        loaded = one.load_newest(skipped)
        right = loaded is not None and same(loaded.tensors, tensors(loaded.step))
        caught = loaded is not None and loaded.step == 1 and len(skipped) == 1 and bool(skipped[0].why)
        count = outcomes.setdefault(kind, {"tried": 0, "caught": 0})
        count["tried"] += 1
        count["caught"] += right and caught
        shutil.rmtree(newest)
        shutil.copytree(kept, newest)
    return {"place": "object store" if location else "folder", "outcomes": outcomes}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    counts = [count for trial in trials for count in trial["outcomes"].values()]
    tried, caught = (sum(count[name] for count in counts) for name in ("tried", "caught"))
    return {"tried": tried, "caught": caught, "reached": tried >= TRIALS * DAMAGES and caught == tried}


def tensors(step: int) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(step)
    return {f"model/{index}": torch.randn(50, 40, generator=source) for index in range(3)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def damage(paper_folder: Path, chance: random.Random) -> str:
    """Does one damage; returns its kind."""
    files = sorted(path for path in paper_folder.iterdir() if path.is_file())
    kind, path = chance.choice(["flip", "flip", "flip", "cut", "gone", "foreign", "swap"]), chance.choice(files)
    content = bytearray(path.read_bytes())
    if kind == "flip":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        return f"flip {path.name}"
    if kind == "cut":
        path.write_bytes(content[: chance.randrange(len(content))])
    elif kind == "gone":
        path.unlink()
    elif kind == "foreign":
        (paper_folder / "foreign.bin").write_bytes(b"x")
    else:
        first, second = files[0].read_bytes(), files[-1].read_bytes()
        files[0].write_bytes(second)
        files[-1].write_bytes(first)
    return kind


def _forget_hashes() -> None:
    """The mutant: sizes are compared, contents are not."""
    real = paper._entry  # noqa: SLF001 - a mutant
    known: dict[str, paper.FileEntry] = {}

    def entry(path: Path) -> paper.FileEntry:
        now = real(path)
        first = known.setdefault(f"{path.parent.name}/{path.name}", now)
        return paper.FileEntry(xxh3=first.xxh3, size_bytes=now.size_bytes)

    paper._entry = entry  # noqa: SLF001 - a mutant
