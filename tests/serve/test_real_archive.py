"""An archive as `emberline archive` makes it, served, probed and asked."""

import json
import re
import shutil

import pytest

from emberline import paper
from emberline.archive.store import write_archive
from emberline.client import Client, RequestRefused
from emberline.recipe import Archive
from emberline.runlog import read_events

pytestmark = pytest.mark.long


@pytest.fixture
def served(start, tiny_runs, tmp_path, keys):
    settings = Archive(model="tiny", versions={"fp32": "1.0"})
    artifact = tiny_runs / "tiny" / "artifacts" / "fp32"
    write_archive(artifact, settings, tmp_path / "tiny.yaml", store=tmp_path / "store", keys=keys)
    return start("--store", tmp_path / "store").ready()


def test_archive_of_ours_is_ready_only_after_its_own_probe_and_answers_rows_apart(served):
    (line,) = served.readiness().json()["versions"]
    assert (line["model"], line["version"], line["ready"]) == ("tiny", "1.0", True)
    assert line["probe_ms"] > 0

    with Client(f"http://{served.state['inference']}") as client:
        answer = client.predict("tiny", {"x": [1, -2, 3, 4]})
        assert answer.body["label"] in "abc"
        assert sum(answer.body["scores"]) == pytest.approx(1.0, abs=1e-5)
        several = client.predict("tiny", [{"x": [1, -2, 3, 4]}, {"x": [0, 0, 0, 0]}])
        assert several.body["predictions"][0]["label"] == answer.body["label"]
        with pytest.raises(RequestRefused, match="x") as refusal:
            client.predict("tiny", {"x": [1, -2, 3, 400]})
        assert (refusal.value.status, refusal.value.field) == (400, "x")


def test_preferred_package_that_does_not_fit_gives_way_to_the_next_and_serve_tells_it(start, tiny_runs, tmp_path, keys):
    made = tiny_runs / "tiny" / "artifacts" / "fp32"
    described = json.loads((made / "artifact.json").read_text())
    (package,) = described["packages"]
    described["packages"] = [{**package, "file": "native.pt2", "needs": ["flag_of_no_cpu"]}, package]
    with paper.write_paper(tmp_path / "artifact", "artifact", seed=0) as draft:
        for name in ("model.pt2", "native.pt2"):
            shutil.copy(made / "model.pt2", draft.folder / name)
        shutil.copy(made / "probe.json", draft.folder)
        (draft.folder / "artifact.json").write_text(json.dumps(described))
    settings = Archive(model="tiny", versions={"artifact": "1.0"})
    write_archive(tmp_path / "artifact", settings, tmp_path / "tiny.yaml", store=tmp_path / "store", keys=keys)
    server = start("--store", tmp_path / "store").ready()
    told = (
        "tiny 1.0 serves model.pt2 (exported, fp32); this machine cannot use native.pt2: this CPU lacks flag_of_no_cpu"
    )
    assert f"warning: {told}" in server.output
    events = read_events(server.folder / "state" / "serve.jsonl")
    (probed,) = [one for one in events if one["event"] == "probed"]
    assert probed["packages"] == ["model.pt2 (exported, fp32)"]


def test_the_guides_own_handlers_are_served_once_they_answer_as_when_they_were_archived(
    start, tiny_runs, tmp_path, keys, root
):
    artifact = tiny_runs / "tiny" / "artifacts" / "fp32"
    guide = (root / "docs" / "guides" / "handlers.md").read_text()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", guide, re.DOTALL)):
        (tmp_path / f"mine_{number}.py").write_text(block)
        settings = Archive(model=f"mine-{number}", versions={"fp32": "1.0"}, handler=f"mine_{number}.py")
        write_archive(artifact, settings, tmp_path / "tiny.yaml", store=tmp_path / "store", keys=keys)
    server = start("--store", tmp_path / "store").ready()
    assert [line["ready"] for line in server.readiness().json()["versions"]] == [True, True]
    assert "no probe" not in server.output
    with Client(f"http://{server.state['inference']}") as client:
        assert client.predict("mine-0", {"x": [1, -2, 3, 4]}).body["label"] in "abc"
        assert client.predict("mine-1", {"x": [1, -2, 3, 4]}).body == {"x": [1, -2, 3, 4]}
