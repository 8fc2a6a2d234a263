"""Whose training a run's folder holds."""

import pytest

from emberline.errors import EmberlineError
from emberline.recipe import load_recipe
from emberline.runlog import RunLog
from emberline.train.folder import LOG, RECIPE, finished_manifest, prepare_folder


def test_how_training_is_carried_out_may_change_but_not_what_it_computes(toy):
    def recipe(*settings):
        return load_recipe(toy.folder / "toy.yaml", settings)

    first = prepare_folder(toy.run, recipe(), 77)
    again = prepare_folder(toy.run, recipe("train.checkpoint_every_s=9", "train.max_restarts=1", "serve.workers=3"), 77)
    assert again == first
    (toy.run / "checkpoints" / "step-000001").mkdir(parents=True)
    changed = recipe("train.optimizer.learning_rate=0.5", "seed=4")
    with pytest.raises(EmberlineError, match=r"\(seed: 3 → 4; train.optimizer.learning_rate: 0.01 → 0.5\)"):
        prepare_folder(toy.run, changed, 77)
    with pytest.raises(EmberlineError, match="another recipe"):
        finished_manifest(toy.run, changed)
    assert finished_manifest(toy.run, recipe()) is None


def test_data_that_grew_between_two_starts_are_refused(toy):
    recipe = load_recipe(toy.folder / "toy.yaml")
    prepare_folder(toy.run, recipe, 77)
    (toy.run / "checkpoints" / "step-000001").mkdir(parents=True)
    with pytest.raises(EmberlineError, match="had 77 rows when this run was started; now they are 78"):
        prepare_folder(toy.run, recipe, 78)


def test_a_folder_with_nothing_to_go_on_from_is_taken_by_a_changed_recipe(toy):
    first = prepare_folder(toy.run, load_recipe(toy.folder / "toy.yaml"), 77)
    RunLog(toy.run / LOG, quiet=True).event("step", step=1)
    changed = load_recipe(toy.folder / "toy.yaml", ("seed=4",))
    with pytest.raises(EmberlineError, match="another recipe"):  # memory may have the state of that step
        prepare_folder(toy.run, changed, 78)
    RunLog(toy.run / LOG, quiet=True).event("not_finite", step=1)
    second = prepare_folder(toy.run, changed, 78)
    assert (second.anew, second.run_id != first.run_id) == ("seed: 3 → 4", True)
    assert prepare_folder(toy.run, changed, 77).anew == "training rows: 78 → 77"
    assert prepare_folder(toy.run, changed, 77).anew == ""


@pytest.mark.parametrize("damage", [RECIPE, "run.json"])
def test_a_folder_of_an_earlier_version_is_told_so(toy, damage):
    prepare_folder(toy.run, load_recipe(toy.folder / "toy.yaml"), 77)
    (toy.run / "checkpoints" / "step-000001").mkdir(parents=True)
    path = toy.run / damage
    path.write_text('{"id": "no training"}' if damage == "run.json" else path.read_text() + "gone: 1\n")
    with pytest.raises(EmberlineError, match="made by an earlier version of emberline, or altered") as caught:
        finished_manifest(toy.run, load_recipe(toy.folder / "toy.yaml", ("seed=4",)))
    assert "start another run (--set run=" in str(caught.value)
