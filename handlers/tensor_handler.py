"""Serves models whose inputs are numbers, sent as JSON."""

from ember_handler import EmberHandler


class TensorHandler(EmberHandler):
    """All of it is `EmberHandler`'s; TorchServe requires exactly one class in this file."""
