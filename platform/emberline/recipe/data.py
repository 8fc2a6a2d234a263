"""Which rows it learns from, and how workers read them."""

from typing import Any

from pydantic import Field

from emberline.recipe.fields import Reference, Section


class Data(Section):
    """`source` is called with `arguments` and returns `emberline.data.Splits`."""

    source: Reference
    arguments: dict[str, Any] = {}
    sample: float | None = Field(default=None, gt=0, le=1)
    """Fraction of the training rows to train on, always the same ones: for a quick look."""
    threads: int = Field(default=2, ge=0)
    """Threads of each worker that decode ahead, beside one that reads; 0 reads rows when they are asked for."""
    ahead: int = Field(default=4, ge=1)
    """Pieces of a batch that are kept ready, one virtual shard's rows each."""
