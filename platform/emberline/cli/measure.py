"""`emberline measure`: latency, memory and size of artifacts and modules side by side."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emberline.cli.options import Set, find_recipe


def measure(
    artifacts: Annotated[tuple[str, ...], Parameter(negative="")],
    /,
    *,
    rounds: int = 40,
    batch_size: Annotated[tuple[int, ...], Parameter(negative="")] = (1, 32),
    threads: int = 1,
    compiled: Annotated[bool, Parameter(negative="")] = False,
    input_: Annotated[tuple[str, ...], Parameter(name="--input", negative="")] = (),
    recipe: Annotated[Path | None, Parameter(name="--recipe")] = None,
    settings: Set = (),
) -> None:
    """Measure artifacts and modules side by side, in interleaved rounds, artifacts each on its own probe
    or all on the validation rows of a recipe.

    Args:
        artifacts: Folders of artifacts, files of their packages, or functions `module:function` that make a module;
            the first one is what the others are compared with.
        rounds: Rounds; each times everything once. Slow nets get fewer, but never below 7.
        batch_size: Rows of a batch; repeat the option for several.
        threads: Threads per batch.
        compiled: Measure modules by torch.compile as well.
        input_: Type and shape of one row, such as float32:3x224x224, for random rows in place of the probes; repeat it
            for several inputs.
        recipe: The recipe whose validation rows take the place of the probes; accuracy on them is told as well.
    """
    from emberline.errors import InvalidOption
    from emberline.measure.artifacts import measure_artifacts

    for option, values in (("--rounds", (rounds,)), ("--batch-size", batch_size), ("--threads", (threads,))):
        if min(values) < 1:
            hint = "leave it out for the default that --help shows"
            raise InvalidOption("emberline measure", option, min(values), "1 or more", hint=hint)
    measure_artifacts(
        artifacts,
        rounds=rounds,
        batch_sizes=batch_size,
        threads=threads,
        compiled=compiled,
        inputs=input_,
        recipe=None if recipe is None else find_recipe(recipe),
        settings=settings,
    )
