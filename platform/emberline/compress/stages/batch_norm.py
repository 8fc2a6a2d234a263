"""Batch-norm re-estimation: after pruning, means and variances are those of channels that no longer add up the same."""

import torch
from torch import nn

from emberline.compress.context import Context
from emberline.compress.state import State

PASSES = 20
ROWS_PER_PASS = 64


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())  # noqa: SLF001 - its one common base


def re_estimate(state: State, _settings: None, context: Context) -> State:
    """Averages the statistics anew over forward passes of training rows; weights stay as they are."""
    model = state.model
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    if not norms:
        return state.after(note={"batch_norms": 0})
    inputs = [torch.from_numpy(array) for array in context.training_rows(PASSES * ROWS_PER_PASS)]
    rows = len(inputs[0])
    momenta = [norm.momentum for norm in norms]
    model.eval()  # dropout and the like stay off
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all passes
        norm.train()
    with torch.no_grad():
        for start in range(0, rows, ROWS_PER_PASS):
            if start and rows - start == 1:
                break  # one row alone has no variance
            model(*[array[start : start + ROWS_PER_PASS] for array in inputs])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return state.after(model=model, note={"batch_norms": len(norms), "rows": rows})
