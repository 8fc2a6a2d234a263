"""Which multiple channel widths are rounded to, found by timing nets pruned with each."""

import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from emberline.compress.backends.compiling import compiling
from emberline.compress.context import Context
from emberline.errors import EmberlineError, StageFailed
from emberline.recipe import Prune

MULTIPLES = (1, 4, 8, 16)
_ROUNDS = 30
_CLEARLY = 0.97  # of the time per multiply-add: closer ones count as equal, and the finer multiple wins


def choose_multiple(model: nn.Module, settings: Prune, context: Context) -> tuple[int, dict[str, dict[str, float]]]:
    """The multiple whose net needs the least time per multiply-add it kept, and what was measured of each.

    A coarser multiple also removes more, since widths are rounded down; time alone would always prefer it. Each net is
    compiled as the artifact will be, and they take turns.

    Raises:
        StageFailed: no multiple removes anything.
    """
    import torch_pruning

    from emberline.compress.stages.prune import remove_channels

    example = context.example(max(2, context.settings.batch_sizes[0]))
    programs: dict[int, Callable[[], Any]] = {}
    work: dict[int, float] = {}
    for multiple in MULTIPLES:
        candidate = copy.deepcopy(model)
        try:
            remove_channels(candidate, settings, multiple, example)
        except StageFailed:
            continue  # nothing is left to remove with so coarse a multiple
        operations, _ = torch_pruning.utils.count_ops_and_params(candidate, example)
        if operations in work.values():
            continue  # the very net that a finer multiple made
        context.log.say(f"prune: compiling with widths of multiples of {multiple}, to be timed …")
        programs[multiple], work[multiple] = _compiled(candidate, example, context), float(operations)
    if not programs:
        raise StageFailed("prune", f"ratio {settings.ratio:g} removes no channel with any of {list(MULTIPLES)}")
    times = _interleaved(programs, context.settings.threads)
    measured = {
        str(one): {"ms": 1e3 * times[one], "operations": work[one], "ps_per_operation": 1e12 * times[one] / work[one]}
        for one in programs
    }
    best = min(programs)
    for multiple in sorted(programs):
        if times[multiple] / work[multiple] < _CLEARLY * times[best] / work[best]:
            best = multiple
    context.log.say(f"prune: widths are multiples of {best}: least time for each multiply-add kept")
    return best, measured


def _compiled(model: nn.Module, example: tuple[torch.Tensor, ...], context: Context) -> Callable[[], Any]:
    """The model as an AOTInductor package; interpreted where there is no compiler."""
    if not context.target.compiler:
        return lambda: model(*example)
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    context.scratch.mkdir(parents=True, exist_ok=True)
    path = Path(context.scratch) / f"widths-{id(model)}.pt2"
    try:
        with compiling(context.settings.threads):
            aoti_compile_and_package(torch.export.export(model.eval(), example), package_path=str(path))
    except Exception as error:
        fact = f"a pruned net cannot be compiled to be timed: {' '.join(str(error).split())[:200]}"
        raise EmberlineError(fact, place="stage prune", hint="give round_to a number, 8 for example") from error
    program = aoti_load_package(str(path))
    return lambda: program(*example)


def _interleaved(programs: dict[int, Callable[[], Any]], threads: int) -> dict[int, float]:
    """Median seconds of one call, the programs taking turns."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seconds: dict[int, list[float]] = {one: [] for one in programs}
    try:
        with torch.no_grad():
            for _ in range(_ROUNDS):
                for one, program in programs.items():
                    program()  # warms the caches that the one before used
                    begin = time.perf_counter()
                    program()
                    seconds[one].append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    return {one: statistics.median(values) for one, values in seconds.items()}
