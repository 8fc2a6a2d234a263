"""A cascade's archive takes the rules that were found for these very artifacts, and its card tells of them."""

import json
import zipfile

import pytest

from emberline.archive.store import write_cascade
from emberline.archivefile import read_archive
from emberline.artifact import read_artifact, to_json
from emberline.cascade import Found, PassFound
from emberline.errors import EmberlineError, MissingFile
from emberline.paper import write_paper
from emberline.recipe import Archive

PASSES = [{"artifact": "light", "confidence": "tuned"}, {"artifact": "fp32"}]


@pytest.fixture
def light(runs, export_artifact):
    from emberline.models.mlp import mlp

    spec = {"inputs": [{"name": "x", "shape": [4], "minimum": -10, "maximum": 10}]}
    return export_artifact(runs / "tiny/artifacts/light", mlp(4, 3, hidden=(2,)), spec, {"x": [1, -2, 3, 4]}, "abc")


@pytest.fixture
def write(light, keys, tmp_path):
    def archived(passes=PASSES, max_drop=0.5):
        cascades = {"quick": {"version": "2.0", "passes": passes, "max_drop": max_drop}}
        settings = Archive.model_validate({"model": "tiny", "versions": {"fp32": "1.0"}, "cascades": cascades})
        artifacts, store = light.parent, tmp_path / "store"
        return write_cascade(artifacts, "quick", settings, tmp_path / "tiny.yaml", store=store, keys=keys).path

    return archived


@pytest.fixture
def found(runs, light, artifact):
    """What `emberline compress` writes."""
    passes = [
        PassFound(artifact=one.name, digest=read_artifact(one)[0].digest, confidence=rule, reached=share, cpu_us=cost)
        for one, rule, share, cost in ((light, 0.99, 1.0, 1.0), (artifact, None, 0.25, 20.0))
    ]
    facts = {"measure": "accuracy", "rows": 9, "quality": 0.9, "alone": 0.92, "cpu_us": 6.0, "alone_cpu_us": 20.0}
    one = Found(**facts, machine="a CPU", passes=tuple(passes))
    with write_paper(runs / "tiny/cascades/quick", "report") as draft:
        (draft.folder / "found.json").write_bytes(to_json(one))
    return one


def test_tuned_rules_come_from_what_was_found(write, found):
    path = write()
    with zipfile.ZipFile(path) as zipped:
        rules = json.loads(zipped.read("cascade.json"))["passes"]
    assert [one["confidence"] for one in rules] == [0.99, None]
    assert read_archive(path).card["cascade"] == {"name": "quick", "found": found.model_dump(mode="json")}


def test_tuned_rules_that_were_not_found_are_asked_for(write):
    with pytest.raises(MissingFile, match="cascades/quick"):
        write()


@pytest.mark.usefixtures("found")
def test_rules_found_for_another_artifact_are_refused(write, artifact):
    manifest, _ = read_artifact(artifact)
    files = {file.name: file.read_bytes() for file in artifact.iterdir() if file.name != "manifest.json"}
    with write_paper(artifact, "artifact", parent=manifest) as draft:  # the same files, and yet another artifact
        for name, content in files.items():
            (draft.folder / name).write_bytes(content)
    with pytest.raises(EmberlineError, match="for other artifacts"):
        write()


def test_rules_of_the_recipes_own_need_nothing_found(write):
    path = write([{"artifact": "light", "confidence": 0.9999}, {"artifact": "fp32"}], None)
    assert read_archive(path).card["cascade"] == {"name": "quick", "found": None}
