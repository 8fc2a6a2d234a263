"""How fast the module is after a stage, run by PyTorch as it is: what the waterfall shows until the export."""

import time
from typing import TYPE_CHECKING

import numpy as np

from emberline.measure.batches import batches_of

if TYPE_CHECKING:
    from emberline.compress.context import Context
    from emberline.compress.state import State

_CALLS = 5
_BUDGET_S = 1.0


def eager_ms(state: "State", context: "Context") -> float | None:
    """Median milliseconds of a batch of the first size to be served, of texts at the lengths of the validation rows.

    None once the program is quantized: interpreted, it is slower than what will be compiled from it, and says nothing.
    """
    if state.quantized is not None:
        return None
    import torch

    texts = [position for position, one in enumerate(context.bounds) if one is not None]
    batches = batches_of(context.validation[0], context.settings.batch_sizes[0], texts)
    examples = [tuple(map(torch.from_numpy, context.cut(batch))) for batch in batches]
    threads = torch.get_num_threads()
    torch.set_num_threads(context.settings.threads)
    taken: list[float] = []
    try:
        with torch.inference_mode():
            state.model(*examples[0])
            while len(taken) < _CALLS and sum(taken) < _BUDGET_S:
                begin = time.perf_counter()
                for example in examples:
                    state.model(*example)
                taken.append((time.perf_counter() - begin) / len(examples))
    finally:
        torch.set_num_threads(threads)
    return float(np.median(taken)) * 1e3
