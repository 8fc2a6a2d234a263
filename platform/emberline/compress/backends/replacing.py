"""Parts of torch's compiler exchanged for a while, where it has no setting for what is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, stand_in: Any) -> Iterator[None]:
    """An attribute of a module or class, put back as it was however the block ends."""
    original = vars(owner)[name]  # as it is kept: a method of a class is not bound yet
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        setattr(owner, name, original)
