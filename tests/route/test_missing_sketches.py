"""Sketches without the extra that makes them."""

import sys

import pytest

from emberline.errors import MissingTool
from emberline.route.sketches import Sketches


def test_sketches_without_their_libraries_are_refused_before_there_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketches", None)
    with pytest.raises(MissingTool, match="emberline\\[sketches\\]"):
        Sketches(tmp_path)
