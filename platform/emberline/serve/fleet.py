"""What one instance is to serve: its versions, and how many workers each."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from emberline.serve.archives import Admitted
from emberline.serve.ledger import Key


@dataclass
class Fleet:
    """The desired state. The supervisor's loop and the intake's thread share it; each entry is replaced whole.

    Attributes:
        admitted: versions to be served.
        retired: versions that somebody unregistered through the management API.
        workers: of each version.
        changing: versions under change now, of which nothing can be concluded.
        leaving: versions whose archive is gone; served until nobody asks for them.
        ended: worker processes that were ended on purpose.
    """

    admitted: dict[Key, Admitted]
    retired: dict[Key, Admitted] = field(default_factory=dict)
    workers: dict[Key, int] = field(default_factory=dict)
    changing: set[Key] = field(default_factory=set)
    leaving: set[Key] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)

    @contextmanager
    def change(self, key: Key) -> Iterator[None]:
        """While the block runs nothing is concluded of the version."""
        self.changing.add(key)
        try:
            yield
        finally:
            self.changing.discard(key)

    def settled(self) -> dict[Key, Admitted]:
        """The versions that ought to answer now."""
        return {key: one for key, one in self.admitted.items() if key not in self.changing | self.leaving}
