"""One experiment's file cannot harm another's, and every way of replacing a file is seen."""

import pytest
import yaml

from emberline.errors import InvalidSetting
from emberline.experiment import Status, write_status
from emberline.route.render import check_together
from emberline.route.settings import Address, Settings, parse_upstreams
from emberline.route.watch import ExperimentsFolder

UPSTREAMS = parse_upstreams([f"{model}@{version}=127.0.0.1:1" for model in ("one", "two") for version in ("1", "2")])
SETTINGS = Settings(UPSTREAMS, {}, Address("127.0.0.1", 1))


def text(model: str, *, name: str | None = None, treatment: str = "2") -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "emberline.dev/v1",
            "kind": "Experiment",
            "metadata": {"name": name or f"exp-{model}"},
            "spec": {
                "model": model,
                "variants": [{"name": "new", "version": treatment}, {"name": "old", "version": "1", "control": True}],
                "primary": {"metric": "correct"},
                "ramp": [{"weight": 5000}],
            },
        }
    )


@pytest.fixture
def folder(tmp_path) -> ExperimentsFolder:
    for model in ("one", "two"):
        (tmp_path / f"{model}.yaml").write_text(text(model))
    watched = ExperimentsFolder(tmp_path, lambda found: check_together(found, SETTINGS))
    assert watched.changed()
    assert [experiment.name for experiment in watched.read()] == ["exp-one", "exp-two"]
    return watched


@pytest.mark.parametrize("broken", ["", "{", "a: [", text("one", treatment="9"), text("two", name="another")])
def test_a_file_that_breaks_keeps_its_last_good_version_and_is_named(folder, broken):
    path = folder.folder / "one.yaml"
    path.write_text(broken)
    write_status(folder.folder, "exp-two", Status(weights={"new": 7, "old": 9993}, revision=1))
    assert folder.changed()
    one, two = folder.read()
    assert (one.name, one.spec.treatment.version) == ("exp-one", "2")
    assert two.weights == (7, 9993), "the other one goes on"
    assert list(folder.refused) == ["one.yaml"]

    path.write_text(text("one"))
    assert folder.changed()
    folder.read()
    assert not folder.refused


def test_an_experiment_that_ends_and_its_successor_may_come_in_one_change(folder):
    (folder.folder / "a-next.yaml").write_text(text("two", name="next"))
    write_status(folder.folder, "exp-two", Status(phase="Shipped", weights={"new": 10_000, "old": 0}, revision=2))
    assert [experiment.name for experiment in folder.read()] == ["exp-one", "exp-two", "next"]
    assert not folder.refused


def test_a_broken_status_keeps_the_last_good_weights(folder):
    write_status(folder.folder, "exp-one", Status(weights={"new": 10, "old": 9990}, revision=1))
    folder.read()
    (folder.folder / "exp-one.status.json").write_text("{half")
    assert folder.read()[0].weights == (10, 9990)
    assert isinstance(folder.refused["one.yaml"], InvalidSetting)


def test_a_swapped_link_is_seen_as_in_a_mounted_configmap(tmp_path):
    for version in ("a", "b"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "one.yaml").write_text(text("one"))
    write_status(tmp_path / "b", "exp-one", Status(weights={"new": 1, "old": 9999}))
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "..data").symlink_to(tmp_path / "a")
    (mounted / "one.yaml").symlink_to("..data/one.yaml")
    (mounted / "exp-one.status.json").symlink_to("..data/exp-one.status.json")
    folder = ExperimentsFolder(mounted, lambda _: None)
    assert folder.changed()
    assert folder.read()[0].weights == (0, 10_000)
    assert not folder.changed()
    (mounted / "..new").symlink_to(tmp_path / "b")
    (mounted / "..new").rename(mounted / "..data")
    assert folder.changed()
    assert folder.read()[0].weights == (1, 9999)


def test_a_file_that_goes_takes_its_experiment_along(folder):
    (folder.folder / "one.yaml").unlink()
    assert folder.changed()
    assert [experiment.name for experiment in folder.read()] == ["exp-two"]
