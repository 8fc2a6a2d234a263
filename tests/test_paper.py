"""A paper is there whole or not at all, and what was altered is named."""

import json
from pathlib import Path

import pytest

from emberline.errors import CorruptPaper, EmberlineError, MissingFile, NewerSchema
from emberline.paper import MANIFEST, Kind, read_manifest, verify_paper, write_paper


def make(target: Path, content: bytes = b"content", kind: Kind = "artifact", **options: object) -> None:
    with write_paper(target, kind, recipe="r", seed=1, **options) as draft:  # type: ignore[arg-type]
        (draft.folder / "a.bin").write_bytes(content)
        (draft.folder / "sub").mkdir()
        (draft.folder / "sub/b.bin").write_bytes(b"b")
        draft.facts["steps"] = 3


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    make(tmp_path / "run")
    manifest = verify_paper(tmp_path / "run", "artifact")
    assert sorted(manifest.files) == ["a.bin", "sub/b.bin"]
    assert manifest.facts == {"steps": 3}


def test_equal_papers_have_equal_digests_whenever_they_were_written(tmp_path: Path) -> None:
    make(tmp_path / "1/run")
    make(tmp_path / "2/run")
    make(tmp_path / "3/run", b"other")
    digests = [read_manifest(tmp_path / n / "run").digest for n in "123"]
    assert digests[0] == digests[1] != digests[2]


def test_lineage_reaches_through_every_ancestor(tmp_path: Path) -> None:
    make(tmp_path / "first")
    first = read_manifest(tmp_path / "first")
    make(tmp_path / "second", parent=first)
    second = read_manifest(tmp_path / "second")
    make(tmp_path / "third", parent=second)
    lineage = read_manifest(tmp_path / "third").lineage
    assert [step.digest for step in lineage] == [second.digest, first.digest]


@pytest.mark.parametrize("byte", [0, 3, 6])
def test_a_flipped_bit_is_caught_by_name(tmp_path: Path, byte: int) -> None:
    make(tmp_path / "run")
    content = bytearray((tmp_path / "run/a.bin").read_bytes())
    content[byte] ^= 1
    (tmp_path / "run/a.bin").write_bytes(content)
    with pytest.raises(CorruptPaper, match=r"a\.bin"):
        verify_paper(tmp_path / "run")


def test_a_truncated_a_missing_and_a_foreign_file_are_caught_by_name(tmp_path: Path) -> None:
    make(tmp_path / "cut")
    (tmp_path / "cut/a.bin").write_bytes(b"conten")
    with pytest.raises(CorruptPaper, match=r"a\.bin"):
        verify_paper(tmp_path / "cut")
    make(tmp_path / "gone")
    (tmp_path / "gone/sub/b.bin").unlink()
    with pytest.raises(MissingFile, match=r"b\.bin"):
        verify_paper(tmp_path / "gone")
    make(tmp_path / "more")
    (tmp_path / "more/evil.pt").write_bytes(b"x")
    with pytest.raises(CorruptPaper, match=r"evil\.pt"):
        verify_paper(tmp_path / "more")


def test_a_run_may_hold_papers_and_caches_that_its_manifest_does_not_name(tmp_path: Path) -> None:
    make(tmp_path / "run", kind="run")
    make(tmp_path / "run/artifacts/fp32")
    (tmp_path / "run/artifacts/.cache").mkdir()
    (tmp_path / "run/artifacts/.cache/analysis.json").write_bytes(b"{}")
    verify_paper(tmp_path / "run")
    (tmp_path / "run/a.bin").write_bytes(b"Content")
    with pytest.raises(CorruptPaper, match=r"a\.bin: content is xxh3 .*; required: xxh3"):
        verify_paper(tmp_path / "run")


def test_a_manifest_without_its_seal_is_told_as_of_an_earlier_version(tmp_path: Path) -> None:
    make(tmp_path / "run", kind="run")
    path = tmp_path / "run" / MANIFEST
    raw = json.loads(path.read_text())
    del raw["seal"]
    path.write_text(json.dumps(raw, indent=2) + "\n")
    with pytest.raises(CorruptPaper) as caught:
        verify_paper(tmp_path / "run")
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: made by an earlier version of emberline, or altered\n"
        "hint: remove the folder, or start another run (--set run=run-2)"
    )


def test_a_failed_write_leaves_the_earlier_paper_and_nothing_else(tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), write_paper(tmp_path / "run", "run"):
        1 / 0  # noqa: B018 - what fails does not matter
    verify_paper(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "run")
    raw = json.loads((tmp_path / "run" / MANIFEST).read_text())
    (tmp_path / "run" / MANIFEST).write_text(json.dumps(raw | {"schema_version": 99}))
    with pytest.raises(NewerSchema, match="99"):
        read_manifest(tmp_path / "run")


def test_a_manifest_that_is_cut_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "run")
    with pytest.raises(EmberlineError, match="'run' is required"):
        read_manifest(tmp_path / "run", "run")
    path = tmp_path / "run" / MANIFEST
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptPaper):
        read_manifest(tmp_path / "run")


def test_any_flipped_bit_of_a_manifest_is_caught(tmp_path: Path) -> None:
    make(tmp_path / "run")
    path = tmp_path / "run" / MANIFEST
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(EmberlineError):
            read_manifest(tmp_path / "run")
