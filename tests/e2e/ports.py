"""Ports for a stack of a test's own."""

from emberline.errors import EmberlineError
from emberline.process import free_port, require_free_port


def four_free_ports() -> int:
    """First of four neighbouring ports that nobody listens on."""
    while True:
        first = free_port()
        try:
            for port in range(first, first + 4):
                require_free_port(port, "a test")
        except EmberlineError:  # one of them is taken: look on
            continue
        return first
