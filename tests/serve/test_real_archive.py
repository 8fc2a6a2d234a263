"""An archive as `emberline archive` makes it, served, probed and asked."""

import re

import pytest

from emberline.archive.store import write_archive
from emberline.client import Client, RequestRefused
from emberline.recipe import Archive

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
