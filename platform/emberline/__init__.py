"""Emberline takes a PyTorch model from elastic training to versions that compete on live traffic."""

from importlib.metadata import version

__version__ = version("emberline")
