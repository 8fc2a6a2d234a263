"""A process that does single steps with ever more rows, and tells what memory each took: for `batch_size: auto`.

python -m emberline.train.trial RECIPE MOST BUDGET_BYTES [KEY=VALUE …]
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from emberline import process
from emberline.data import Splits, load
from emberline.errors import EmberlineError
from emberline.models import create
from emberline.recipe import Recipe, load_recipe
from emberline.train.determinism import make_deterministic
from emberline.train.fitting import Tried, next_rows
from emberline.train.gradients import OutOfMemory, VirtualShards
from emberline.train.making import make_job, make_learner
from emberline.train.state import Learner
from emberline.train.update import Update
from emberline.train.world import World


def main(arguments: list[str]) -> int:
    recipe_path, most, budget_bytes, *overrides = arguments
    recipe, search = load_recipe(Path(recipe_path), overrides), Path(recipe_path).parent
    try:
        try_sizes(recipe, search, int(most), int(budget_bytes))
    except EmberlineError as error:
        print(str(error).replace("\n", "; "), file=sys.stderr)
        return 1
    return 0


def try_sizes(recipe: Recipe, search: Path, most: int, budget_bytes: int) -> None:
    """Prints a line for each number of rows."""
    make_deterministic(recipe.train.threads)
    splits, device = load(recipe.data, search), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    model = create(recipe.model, search).to(device)
    learner: Learner | None = None
    tried: list[Tried] = []
    while (rows := next_rows(tried, most, budget_bytes)) is not None:
        try:
            learner = _step(recipe, search, splits, model, rows=rows, learner=learner)
            state = sum(one.numel() * one.element_size() for one in learner.tensors().values())
            tried.append(Tried(rows, _peak_bytes(device), state))
        except OutOfMemory:
            tried.append(Tried(rows, None))
        print(json.dumps(asdict(tried[-1])), flush=True)


def _step(
    recipe: Recipe, search: Path, splits: Splits, model: torch.nn.Module, *, rows: int, learner: Learner | None
) -> Learner:
    """One whole step, all virtual shards by this process, with the optimizer's move."""
    train = recipe.train.model_copy(update={"batch_size": rows * recipe.train.virtual_shards})
    sized = recipe.model_copy(update={"train": train})
    job = make_job(sized, search, splits, model, World(device=next(model.parameters()).device))
    learner = learner or make_learner(sized, job)
    update = Update(job, learner, train.clip_norm)
    update.check(0, VirtualShards(job)(0))
    update.apply()
    return learner


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved()
    return process.peak_bytes()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
