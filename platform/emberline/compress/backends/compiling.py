"""How AOTInductor is to compile for a CPU: the same for what is shipped and for what is only timed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from emberline.compress.backends.constants import constants_aligned
from emberline.compress.backends.packing import convolutions_packed
from emberline.compress.target import MARCH, SIMD_BITS


@contextmanager
def compiling(threads: int, *, native: bool = False) -> Iterator[None]:
    """Within the block `aoti_compile_and_package` makes packages as artifacts have them.

    Args:
        threads: loops are compiled for this many.
        native: for the CPU at hand, with all it can do, and not for any x86-64-v3.
    """
    from torch._inductor import config

    # freezing is silently off when gradients are on, and the package four times slower
    with torch.no_grad(), config.patch(cpu_options(threads, native=native)), convolutions_packed(), constants_aligned():
        yield


def cpu_options(threads: int, *, native: bool = False) -> dict[str, Any]:
    """Settings of torch's compiler."""
    return {
        "freezing": True,  # weights become constants, packed once
        "cpp.march": "native" if native else MARCH,
        "cpp.simdlen": None if native else SIMD_BITS,
        "cpp.threads": threads,
    }
