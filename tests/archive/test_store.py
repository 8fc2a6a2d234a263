"""Archives: whole, reproducible, signed, and no more written than needed."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from emberline import signing
from emberline.archive.store import archive_all, write_archive
from emberline.archivefile import read_archive
from emberline.errors import CorruptPaper, EmberlineError, InvalidSetting, MissingFile
from emberline.paper import read_manifest
from emberline.recipe import Recipe


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(artifact, settings, keys, tmp_path):
    def write(store="store", **changes):
        return write_archive(
            artifact, settings.model_copy(update=changes), tmp_path / "tiny.yaml", store=tmp_path / store, keys=keys
        )

    return write


def test_an_archive_tells_all_that_it_is(archive, artifact):
    info = read_archive(archive().path)
    manifest = read_manifest(artifact)
    assert (info.model, info.version, info.handler) == ("tiny", "1.0", "tensor_handler.py")
    assert info.artifact.labels == ("a", "b", "c")
    assert info.lineage.digest == manifest.digest
    assert info.probe.instance == {"x": [1, -2, 3, 4]}
    assert (info.card["licence"], info.card["artifact"]["digest"]) == ("CC0-1.0", manifest.digest)


def test_an_archive_is_flat_and_holds_handler_packages_and_papers(archive):
    files = set(read_archive(archive().path).files)
    assert {"tensor_handler.py", "ember_handler.py", "ember_packages.py", "model.pt2"} <= files
    assert {"artifact.json", "probe.json", "lineage.json", "model-card.json", "MAR-INF/MANIFEST.json"} <= files
    assert {name for name in files if "/" in name} == {"MAR-INF/MANIFEST.json"}
    assert "image_handler.py" not in files


def test_the_same_artifact_makes_the_same_bytes_at_any_time_and_place(archive, artifact):
    first = archive("one").path
    for file in artifact.iterdir():
        file.touch()
        file.chmod(0o600)
    assert digest(archive("two").path) == digest(first)


def test_entries_carry_no_time_order_or_mode_of_this_machine(archive, artifact):
    with zipfile.ZipFile(archive().path) as zipped:
        entries = zipped.infolist()
        served = json.loads(zipped.read("MAR-INF/MANIFEST.json"))
    assert served["createdOn"] == read_manifest(artifact).created
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}


def test_an_archive_is_signed(archive, keys):
    assert signing.verify(archive().path, keys.public) == keys.fingerprint


def test_an_archive_with_one_changed_byte_is_refused(archive, keys):
    path = archive().path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(signing.AlteredArchive):
        signing.verify(path, keys.public)


def test_an_unchanged_archive_is_reused_with_its_signature(archive):
    first = archive()
    times = [path.stat().st_mtime_ns for path in (first.path, signing.signature_of(first.path))]
    again = archive()
    assert (first.outcome, again.outcome) == ("written", "reused")
    assert times == [path.stat().st_mtime_ns for path in (again.path, signing.signature_of(again.path))]


def test_another_content_of_one_version_replaces_it_and_says_so(archive, keys):
    archive()
    replaced = archive(licence="MIT")
    assert replaced.outcome == "replaced"
    assert read_archive(replaced.path).card["licence"] == "MIT"
    signing.verify(replaced.path, keys.public)


@pytest.mark.parametrize("damage", ["archive altered", "signature lost", "another key"])
def test_what_does_not_verify_is_made_again(archive, keys, tmp_path, damage):
    path = archive().path
    if damage == "archive altered":
        path.write_bytes(path.read_bytes() + b"\0")
    elif damage == "signature lost":
        signing.signature_of(path).unlink()
    else:
        signing.sign(path, signing.create_keys(tmp_path / "other"))
    assert archive().outcome == "replaced"
    signing.verify(path, keys.public)


def test_nothing_is_left_beside_the_archive(archive):
    path = archive().path
    assert {one.name for one in path.parent.iterdir()} == {path.name, f"{path.name}.sig"}


def test_the_archiver_never_touches_a_folder_of_the_models_name_in_the_temporary_folder(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = tmp_path / "tiny" / "important"
    theirs.mkdir(parents=True)
    archive()
    assert theirs.is_dir()
    assert tempfile.tempdir == str(tmp_path)


def test_a_corrupted_artifact_is_refused_by_file_and_leaves_nothing(archive, artifact, tmp_path):
    package = artifact / "model.pt2"
    content = bytearray(package.read_bytes())
    content[100] ^= 1
    package.write_bytes(content)
    with pytest.raises(CorruptPaper, match=r"model\.pt2"):
        archive()
    assert not (tmp_path / "store").exists()


def altered(artifact, **changes):
    """The artifact with its description changed, as a paper that is whole."""
    from emberline import paper

    description = json.loads((artifact / "artifact.json").read_text())
    files = {file.name: file.read_bytes() for file in artifact.iterdir() if file.name != paper.MANIFEST}
    files["artifact.json"] = json.dumps({**description, **changes}).encode()
    with paper.write_paper(artifact, "artifact") as draft:
        for name, content in files.items():
            (draft.folder / name).write_bytes(content)


def test_an_artifact_without_packages_is_refused(archive, artifact):
    altered(artifact, packages=[])
    with pytest.raises(EmberlineError, match="no package to serve") as refused:
        archive()
    assert "emberline compress" in refused.value.hint


@pytest.mark.parametrize("name", ["inputs", "instances", "body"])
def test_an_input_that_bodies_could_not_tell_from_their_own_keys_is_refused(archive, artifact, name):
    altered(artifact, preprocessing={"inputs": [{"name": name, "shape": [4]}]})
    with pytest.raises(EmberlineError, match=f"'{name}'"):
        archive()


def recipe(**archive_settings):
    return Recipe.model_validate(
        {
            "run": "tiny",
            "model": {"factory": "a:b"},
            "data": {"source": "a:b"},
            "preprocessing": {"inputs": [{"name": "x", "shape": [4]}]},
            "archive": archive_settings or None,
        }
    )


def test_all_versions_of_a_recipe_are_archived(runs, keys, tmp_path):
    said = []
    stored = archive_all(
        recipe(model="tiny", versions={"fp32": "2.1"}),
        tmp_path / "tiny.yaml",
        runs=runs,
        store=tmp_path / "s",
        keys=keys,
        say=said.append,
    )
    assert [one.path.name for one in stored] == ["tiny-2.1.mar"]
    assert "written" in said[0]


def test_a_candidate_measured_slower_is_never_archived_in_silence(runs, artifact, keys, tmp_path):
    warning = "0.9 times as fast as the baseline"
    altered(artifact, measurement={"accuracy": 0.9, "rows": 100, "speedup": 0.9, "warnings": [warning]})
    section = recipe(model="tiny", versions={"fp32": "1.0"})
    for _ in ("written", "reused"):
        said = []
        archive_all(section, tmp_path / "tiny.yaml", runs=runs, store=tmp_path / "s", keys=keys, say=said.append)
        assert any(warning in line for line in said)
    assert read_archive(tmp_path / "s" / "tiny-1.0.mar").card["measurement"]["warnings"] == [warning]


@pytest.mark.parametrize(
    "section", [{}, {"model": "tiny", "versions": {}}, {"model": "tiny", "versions": {"a": "1", "b": "1"}}]
)
def test_a_recipe_that_archives_nothing_or_one_version_twice_is_refused(section, runs, keys, tmp_path):
    with pytest.raises(InvalidSetting, match=r"archive\.versions"):
        archive_all(recipe(**section), tmp_path / "tiny.yaml", runs=runs, store=tmp_path / "s", keys=keys, say=print)


def test_an_artifact_that_was_not_made_yet_is_named_with_the_verb_that_makes_it(runs, keys, tmp_path):
    with pytest.raises(MissingFile, match="int8") as missing:
        archive_all(
            recipe(model="tiny", versions={"int8": "1.1"}),
            tmp_path,
            runs=runs,
            store=tmp_path / "s",
            keys=keys,
            say=print,
        )
    assert "emberline compress" in missing.value.hint


def test_one_corrupted_artifact_leaves_the_whole_store_as_it_was(runs, artifact, keys, tmp_path):
    damaged = shutil.copytree(artifact, artifact.with_name("int8"))
    with (damaged / "model.pt2").open("ab") as file:
        file.write(b"x")
    section = recipe(model="tiny", versions={"fp32": "1.0", "int8": "1.1"})
    with pytest.raises(CorruptPaper):
        archive_all(section, tmp_path / "tiny.yaml", runs=runs, store=tmp_path / "s", keys=keys, say=print)
    assert not list((tmp_path / "s").iterdir())


def test_archiving_imports_no_torch():
    program = "import emberline.archive.store, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def write_run(runs, artifact, facts):
    """A finished run of the artifact, as training leaves it."""
    from emberline import paper, storage

    run = runs / "tiny"
    (run / "recipe.yaml").write_text(
        "run: tiny\nmodel: {factory: a:b}\ndata: {source: 'my_data:rows', arguments: {year: 2024}}\n"
        "preprocessing: {inputs: [{name: x, shape: [4]}]}\n"
    )
    entry = paper.FileEntry(
        xxh3=storage.content_hash(run / "recipe.yaml"), size_bytes=(run / "recipe.yaml").stat().st_size
    )
    manifest = paper.Manifest(kind="run", name="tiny", created="2024-01-01", facts=facts, files={"recipe.yaml": entry})
    (run / "manifest.json").write_bytes(paper.manifest_bytes(manifest))
    files = {file.name: file.read_bytes() for file in artifact.iterdir() if file.name != paper.MANIFEST}
    with paper.write_paper(artifact, "artifact", parent=manifest) as draft:
        for name, content in files.items():
            (draft.folder / name).write_bytes(content)
        draft.facts["data_digest"] = facts.get("data_digest")
    return run


def test_the_card_tells_of_training_and_data(archive, runs, artifact):
    digest = {"xxh3": "ab" * 16, "rows": 1437, "of": "arrays"}
    write_run(runs, artifact, {"accuracy": 0.9, "rows": 1437, "data_digest": digest})
    card = read_archive(archive().path).card
    assert (card["run"], card["data_digest"]) == ("tiny", digest)
    assert (card["training"]["accuracy"], card["training"]["rows"]) == (0.9, 1437)
    source = {"source": "my_data:rows", "arguments": {"year": 2024}}
    assert card["training"]["data"] == {**source, "sample": None, "threads": 2, "ahead": 4}


def test_the_card_tells_nothing_of_a_run_the_artifact_does_not_come_from(archive, runs, artifact):
    run = write_run(runs, artifact, {"accuracy": 0.9})
    from emberline import paper

    other = paper.read_manifest(run).model_copy(update={"facts": {"accuracy": 0.5}})
    (run / "manifest.json").write_bytes(paper.manifest_bytes(other))
    assert read_archive(archive().path).card["training"] is None


def test_an_altered_or_lost_recipe_of_the_run_is_refused(archive, runs, artifact):
    run = write_run(runs, artifact, {})
    (run / "recipe.yaml").write_text("run: other\n")
    with pytest.raises(CorruptPaper, match=r"recipe\.yaml"):
        archive()
    (run / "recipe.yaml").unlink()
    with pytest.raises(MissingFile, match=r"recipe\.yaml"):
        archive()


def emberline(folder, *arguments):
    command = [str(Path(sys.executable).with_name("emberline")), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("runs")
def test_the_verbs_make_keys_and_archives_and_verify_them(tmp_path):
    (tmp_path / "tiny.yaml").write_text(
        "run: tiny\nmodel: {factory: a:b}\ndata: {source: a:b}\npreprocessing: {inputs: [{name: x, shape: [4]}]}\n"
        "archive: {model: tiny, versions: {fp32: '1.0'}}\n"
    )
    made = emberline(tmp_path, "archive", "tiny.yaml")
    assert made.returncode == 0, made.stderr
    assert "keys/signing.pub: made, key" in made.stderr
    assert "store/tiny-1.0.mar: written" in made.stderr
    assert "reused" in emberline(tmp_path, "archive", "tiny.yaml").stderr
    (tmp_path / "keys" / "signing.pub").unlink()
    assert "keys/signing.pub: was not there; derived" in emberline(tmp_path, "archive", "tiny.yaml").stderr
    verified = emberline(tmp_path, "verify")
    assert verified.returncode == 0
    assert "store/tiny-1.0.mar: tiny 1.0, signed with key" in verified.stderr
    (tmp_path / "store" / "tiny-1.0.mar.sig").unlink()
    refused = emberline(tmp_path, "verify", "store/tiny-1.0.mar")
    assert refused.returncode == 1
    assert "error: store/tiny-1.0.mar: is not signed" in refused.stderr
    assert "hint: " in refused.stderr
