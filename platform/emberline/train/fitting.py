"""`batch_size: auto`: the largest batch that fits, tried once where a run begins, and on record for all later starts.

The rule: rows of a virtual shard are doubled from 2 on, and a whole step is done with each number, by a process of its
own whose memory is measured. The largest is taken for which a worker stays within four fifths of its part of the memory
that is free, less three copies of the state (two snapshots and a checkpoint), and for which an epoch still has 16
steps. The next number is not tried where memory would not suffice if it grew as it did last. The learning rate is
scaled from `optimizer.at_batch_size` to the rows of a step: linearly for SGD, by the square root for AdamW.

Source: Goyal et al., Accurate, Large Minibatch SGD (2017), section 2.1; Malladi et al., On the SDEs and Scaling Rules
for Adaptive Gradient Algorithms (2022), section 5.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import psutil
import torch

from emberline import storage
from emberline.errors import EmberlineError
from emberline.recipe import Optimizer, Recipe, Train
from emberline.train import fence
from emberline.train.folder import training_digest

FILE = "batch.json"  # in the run's folder

_SHARE = 0.8  # of the free memory
_COPIES = 3  # of the state: two snapshots and the checkpoint being written
_FEWEST_STEPS = 16
_LEAST_ROWS = 2  # of a shard: batch norm cannot use one alone


@dataclass(frozen=True)
class Tried:
    """One step with shards of so many rows.

    Attributes:
        peak_bytes: most memory of the process until then; None where it did not suffice.
        state_bytes: of all that a checkpoint holds.
    """

    rows: int
    peak_bytes: int | None
    state_bytes: int = 0


@dataclass(frozen=True)
class Choice:
    """What was chosen, with the training it is for."""

    training: str
    batch_size: int
    learning_rate: float


def settled(settings: Train, choice: Choice) -> Train:
    """The settings with the numbers that were chosen."""
    optimizer = settings.optimizer.model_copy(update={"learning_rate": choice.learning_rate})
    return settings.model_copy(update={"batch_size": choice.batch_size, "optimizer": optimizer})


def read_choice(folder: Path, training: str) -> Choice | None:
    """What a run's folder has on record for this training."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        choice = Choice(**orjson.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        hint = "remove it and the run's checkpoints, or put it back: it says which batch they were trained with"
        raise EmberlineError("the batch size on record cannot be read", place=path, hint=hint) from error
    return choice if choice.training == training else None


def as_trained(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with what its finished run has chosen, for who trains its artifacts further."""
    choice = read_choice(folder, training_digest(recipe)) if recipe.train.batch_size == "auto" else None
    return recipe if choice is None else recipe.model_copy(update={"train": settled(recipe.train, choice)})


def write_choice(folder: Path, choice: Choice, generation: int) -> None:
    """Raises Fenced where a newer world trains this run."""
    staging = folder / f".{FILE}.{generation}"
    storage.write_bytes(staging, orjson.dumps(asdict(choice)))
    fence.commit(folder, generation, staging, folder / FILE)


def most_rows(num_rows: int, settings: Train) -> int:
    """Rows of a shard above which an epoch would have too few steps, at least as many as batch norm needs."""
    return max(_LEAST_ROWS, num_rows // (_FEWEST_STEPS * settings.virtual_shards * settings.accumulate))


def next_rows(tried: Sequence[Tried], most: int, budget_bytes: int) -> int | None:
    """How many rows a shard is to be tried with next; None where enough was seen.

    Args:
        budget_bytes: of one worker, the copies of its state included.
    """
    if not tried:
        return _LEAST_ROWS
    last = tried[-1]
    if last.peak_bytes is None or last.rows * 2 > most:
        return None
    grew = last.peak_bytes - (tried[-2].peak_bytes or 0) if len(tried) > 1 else 0
    fits = last.peak_bytes + 2 * grew + _COPIES * last.state_bytes <= budget_bytes
    return last.rows * 2 if fits else None


def best_rows(tried: Sequence[Tried], budget_bytes: int) -> int | None:
    """The largest number that fits; None where not even the first did."""
    fitting = [
        one.rows
        for one in tried
        if one.peak_bytes is not None and one.peak_bytes + _COPIES * one.state_bytes <= budget_bytes
    ]
    return max(fitting, default=None)


def scaled_rate(settings: Optimizer, rows: int) -> float:
    """The learning rate for steps of so many rows."""
    factor = rows / (settings.at_batch_size or rows)
    return settings.learning_rate * (factor if settings.name == "sgd" else math.sqrt(factor))


def budget_of_worker() -> int:
    """Bytes that one worker of this node may use: of its device, or of this machine's or container's memory."""
    workers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        sharing = -(-workers // torch.cuda.device_count())
        return int(_SHARE * torch.cuda.mem_get_info()[0] / sharing)
    return int(_SHARE * _free_bytes() / workers)


def choose(
    recipe_path: Path, overrides: Sequence[str], recipe: Recipe, *, num_rows: int, training: str, budget_bytes: int
) -> tuple[Choice, str]:
    """Tries, and chooses; returns a line for the person, too.

    Args:
        num_rows: to train on; of a ranking, groups.

    Raises:
        EmberlineError: not even the smallest batch fits, or a step fails for another reason.
    """
    settings = recipe.train
    tried = _try(recipe_path, overrides, most=most_rows(num_rows, settings), budget_bytes=budget_bytes)
    rows = best_rows(tried, budget_bytes)
    if rows is None:
        needed = tried[0].peak_bytes
        got = "too little memory" if needed is None else f"{needed >> 20} MiB of memory"
        fact = f"a step of {_LEAST_ROWS} rows a shard needs {got}; {budget_bytes >> 20} MiB are there for one worker"
        hint = "start fewer workers on this machine, or train a smaller model"
        raise EmberlineError(fact, place="train.batch_size", hint=hint)
    batch = rows * settings.virtual_shards
    rate = scaled_rate(settings.optimizer, batch * settings.accumulate)
    peak = next(one.peak_bytes for one in tried if one.rows == rows)
    how = "linearly" if settings.optimizer.name == "sgd" else "by the square root"
    memory = f"{(peak or 0) >> 20} MiB of the {budget_bytes >> 20} MiB that a worker may use"
    text = (
        f"batch_size: auto is {batch}, {rows} rows a shard, with {memory}; learning_rate "
        f"{settings.optimizer.learning_rate:g} at {settings.optimizer.at_batch_size} becomes {rate:.4g}, scaled {how}"
    )
    return Choice(training, batch, rate), text


def _try(recipe_path: Path, overrides: Sequence[str], *, most: int, budget_bytes: int) -> list[Tried]:
    """What a process of its own saw, which memory may end at any time."""
    numbers = (str(most), str(budget_bytes))
    command = [sys.executable, "-m", "emberline.train.trial", str(recipe_path), *numbers, *overrides]
    alone = {**os.environ, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}  # a world of its own
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=alone)
    tried = [Tried(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    killed = done.returncode < 0
    if done.returncode and not killed:
        told = done.stderr.strip().splitlines()
        raise EmberlineError(f"a first step failed: {told[-1] if told else 'without a word'}", place="batch_size: auto")
    if killed or not tried:
        rows = tried[-1].rows * 2 if tried else _LEAST_ROWS
        tried.append(Tried(rows, None))
    return tried


def _free_bytes() -> int:
    """Memory that is free on this machine, or left to this container."""
    free = int(psutil.virtual_memory().available)
    limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()))
    return free
