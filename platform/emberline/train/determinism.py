"""The conditions under which torch computes the same bits again: a fixed number of threads, deterministic kernels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_memory: Any = torch.utils.deterministic  # its attribute is one that mypy cannot see


def make_deterministic(threads: int) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by deterministic cuBLAS, read at its start
    torch.set_num_threads(threads)
    # the same as use_deterministic_algorithms(True), which also imports the compiler: two seconds at each restart
    torch.set_deterministic_debug_mode("error")
    # With deterministic kernels comes, unless told otherwise, a NaN written over all memory handed out, against layers
    # that read what they never wrote. A profile of a net of 11M weights showed a tenth of a step's time going there.
    _memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """The same for a while, in a process that does other things too."""
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    fills = _memory.fill_uninitialized_memory
    make_deterministic(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        torch.backends.cudnn.benchmark = before[2]
        _memory.fill_uninitialized_memory = fills
