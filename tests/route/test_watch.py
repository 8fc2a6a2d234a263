"""One experiment's file cannot harm another's, and every way of replacing a file is seen."""

import pytest
import yaml

from emberline.errors import InvalidSetting
from emberline.experiment import Status, load_experiment, status_path, write_status
from emberline.route.render import check_together
from emberline.route.settings import Address, Settings, parse_upstreams
from emberline.route.watch import ExperimentsFolder

UPSTREAMS = parse_upstreams(
    [f"{model}@{version}=127.0.0.1:1" for model in ("one", "two") for version in ("1", "2", "3")]
)
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


def begin(folder, name: str, path: str, **changes) -> None:
    """The status as rollout writes it once the experiment has begun."""
    spec = load_experiment(folder / path).spec
    status = {"phase": "Ramping", "weights": {"new": 100, "old": 9900}, "revision": 1, **changes}
    write_status(folder, name, Status(spec=spec, spec_digest=spec.digest, **status))


def in_force(experiment):
    return experiment.spec.treatment.version, experiment.weights, experiment.config_version


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("phase", ["Ramping", "Shipped"])
def test_a_version_edited_after_the_beginning_moves_no_traffic(tmp_path, restarted, phase):
    path = tmp_path / "one.yaml"
    path.write_text(text("one"))
    begin(tmp_path, "exp-one", path.name, phase=phase)
    folder = ExperimentsFolder(tmp_path, lambda found: check_together(found, SETTINGS))
    (before,) = folder.read()
    path.write_text(text("one").replace("version: '2'", "version: '3'").replace("name: new", "name: newer"))
    if restarted:
        folder = ExperimentsFolder(tmp_path, lambda found: check_together(found, SETTINGS))
    (after,) = folder.read()
    assert in_force(after) == in_force(before) == ("2", (100, 9900), before.config_version)
    assert after.edited == ("variants",)
    if phase == "Ramping":
        assert "was changed while it ran (variants)" in str(folder.refused["one.yaml"])
        assert "a name and a file of its own" in str(folder.refused["one.yaml"])
    begin_again = load_experiment(path).status.model_copy(update={"weights": {"new": 0, "old": 10_000}, "revision": 2})
    write_status(tmp_path, "exp-one", begin_again)
    assert folder.read()[0].weights == (0, 10_000), "what rollout decides is followed"


def test_an_edit_that_changes_nothing_is_no_change(folder):
    begin(folder.folder, "exp-one", "one.yaml")
    path = folder.folder / "one.yaml"
    path.write_text("# why\n" + text("one") + "  alpha: 0.05\n  unit: {header: x-unit-id}\n")
    one, _ = folder.read()
    assert not one.edited
    assert not folder.refused


def test_an_edit_under_a_status_of_an_earlier_version_leaves_what_the_router_has_seen(folder):
    digest = load_experiment(folder.folder / "one.yaml").spec_digest
    status = Status(phase="Ramping", weights={"new": 100, "old": 9900}, revision=1, spec_digest=digest)
    write_status(folder.folder, "exp-one", status)
    folder.read()
    (folder.folder / "one.yaml").write_text(text("one", treatment="3"))
    write_status(folder.folder, "exp-one", status.model_copy(update={"weights": {"new": 200, "old": 9800}}))
    assert in_force(folder.read()[0])[:2] == ("2", (200, 9800))
    assert "one.yaml" in folder.refused
    fresh = ExperimentsFolder(folder.folder, lambda found: check_together(found, SETTINGS))
    assert [one.name for one in fresh.read()] == ["exp-two"], "nobody knows what it began with"
    assert "one.yaml" in fresh.refused


@pytest.mark.parametrize("broken", ["{", text("one").replace("primary", "primery")])
@pytest.mark.parametrize("file", ["one.yaml", "zzz.yaml"])
def test_a_router_that_starts_over_a_broken_file_goes_on_as_the_status_tells(tmp_path, broken, file):
    (tmp_path / file).write_text(text("one"))
    (tmp_path / "two.yaml").write_text(text("two"))
    begin(tmp_path, "exp-one", file)
    (tmp_path / file).write_text(broken)
    folder = ExperimentsFolder(tmp_path, lambda found: check_together(found, SETTINGS))
    one, two = folder.read()
    assert in_force(one)[:2] == ("2", (100, 9900))
    assert not one.gone
    assert two.name == "exp-two"
    assert list(folder.refused) == [file]
    (tmp_path / file).write_text(text("one"))
    assert [experiment.name for experiment in folder.read()] == ["exp-one", "exp-two"]
    assert not folder.refused


def test_a_file_broken_before_its_experiment_began_keeps_only_itself_out(tmp_path):
    (tmp_path / "one.yaml").write_text("{")
    (tmp_path / "two.yaml").write_text(text("two"))
    folder = ExperimentsFolder(tmp_path, lambda found: check_together(found, SETTINGS))
    assert [experiment.name for experiment in folder.read()] == ["exp-two"]
    assert list(folder.refused) == ["one.yaml"]


@pytest.mark.parametrize("restarted", [False, True])
def test_an_experiment_going_on_whose_file_goes_stays_in_force_and_is_named(folder, restarted):
    begin(folder.folder, "exp-one", "one.yaml")
    folder.read()
    (folder.folder / "one.yaml").unlink()
    watched = ExperimentsFolder(folder.folder, lambda found: check_together(found, SETTINGS)) if restarted else folder
    one, _ = watched.read()
    assert in_force(one)[:2] == ("2", (100, 9900))
    assert "file was taken away while it ran" in str(watched.refused["exp-one.status.json"])
    status_path(folder.folder, "exp-one").unlink()
    assert [experiment.name for experiment in watched.read()] == ["exp-two"]
    assert not watched.refused


def test_two_files_of_one_name_are_both_named_and_what_was_in_force_stays(folder):
    begin(folder.folder, "exp-one", "one.yaml")
    folder.read()
    (folder.folder / "copy.yaml").write_text(text("one", treatment="3"))
    write_status(folder.folder, "exp-one", load_experiment(folder.folder / "one.yaml").status)
    assert [in_force(one)[0] for one in folder.read()] == ["2", "2"]
    assert set(folder.refused) == {"one.yaml", "copy.yaml"}
    for name, other in (("one.yaml", "copy.yaml"), ("copy.yaml", "one.yaml")):
        said = str(folder.refused[name])
        assert "metadata.name is 'exp-one'" in said
        assert other in said
        assert "changed" not in said
