"""Detection and segmentation in training: the same bits and metric in any world, and labels that are refused."""

import numpy as np
import pytest

from emberline import data
from emberline.data.targets import BadTarget, Targets
from emberline.paper import read_manifest
from emberline.recipe import Data, load_recipe
from emberline.train.batches import check_rows

NETS = {"detection": ("boxes", "detector:detector", 3, "map50"), "segmentation": ("masks", "unet:unet", 4, "mean_iou")}


def settings(task):
    source, factory, classes, _ = NETS[task]
    return (
        f"model={{factory: 'emberline.models.{factory}', arguments: {{num_classes: {classes}, width: 4}}}}",
        f"data={{source: 'emberline.data.shapes:{source}', arguments: {{train: 50, validation: 150, size: 16}}}}",
        "preprocessing={inputs: [{name: image, kind: image}], steps: [{op: scale, by: 0.004}, {op: channels_first}]}",
        f"labels={list('abcd'[:classes])}",
        f"train.task={task}",
        "train.augment=null",
        "train.epochs=2",
    )


@pytest.mark.parametrize("task", NETS)
def test_pictures_give_the_same_bits_and_the_same_metric_in_any_world(make_toy, task):
    metric, found = NETS[task][3], []
    for size in (1, 2):
        toy = make_toy(f"{task}-{size}")
        toy.train_world(size, *settings(task))
        epochs = [(event[metric], event["loss"]) for event in toy.events("epoch")]
        facts = read_manifest(toy.run, "run").facts
        assert (facts["metric"], len(epochs)) == (metric, 2)
        assert np.isfinite(epochs).all()
        found.append((toy.weights(), epochs, facts[metric]))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ([[0, 0.1, 0.1, 0.5]], r"objects of shape \[1, 4\]"),
        ([[3, 0.1, 0.1, 0.5, 0.5]], "an object's class is 3 to 3; 0 to 2"),
        ([[0.5, 0.1, 0.1, 0.5, 0.5]], "an object's class is 0.5 to 0.5"),
        ([[0, 10, 10, 50, 50]], "in fractions of the picture"),
        ([[0, 0.5, 0.1, 0.5, 0.5]], "a box is no left, top, right, bottom"),
        ([[0, np.nan, 0.1, 0.5, 0.5]], "a box is no left, top, right, bottom"),
        ("cat", "could not convert"),
    ],
)
def test_objects_that_are_none_are_refused(label, why):
    with pytest.raises(BadTarget, match=why) as caught:
        Targets("detection", 3).of([[], label], (16, 16))
    assert caught.value.row == 1


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (np.zeros((4, 4)), "a mask of float64"),
        (np.zeros((4, 4, 1), int), "whole numbers"),
        (np.full((4, 4), 3), "a mask's classes are 3 to 3; 0 to 2"),
        (np.full((4, 4), -1), "a mask's classes are -1 to -1"),
    ],
)
def test_masks_that_are_none_are_refused(label, why):
    with pytest.raises(BadTarget, match=why):
        Targets("segmentation", 3).of([np.zeros((4, 4), int), label], (4, 4))


def test_objects_of_a_batch_are_filled_up_and_masks_take_the_size_of_the_input():
    objects = Targets("detection", 3).of([[], [[1, 0, 0, 1, 1], [2, 0, 0, 0.5, 0.5]]], (8, 8))
    assert objects[..., 0].tolist() == [[-1, -1], [1, 2]]
    masks = Targets("segmentation", 3).of([np.array([[0, 1], [2, 0]])], (4, 4))
    assert masks[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 0, 0], [2, 2, 0, 0]]


def test_a_row_with_a_bad_label_is_named_before_a_run_is_made(root, monkeypatch):
    recipe = load_recipe(root / "recipes/shapes-detection.yaml", ["data.arguments={train: 3}"])
    splits = data.load(recipe.data, None)
    picture = splits.train[0][0]
    monkeypatch.setattr(type(splits.train), "__getitem__", lambda _self, _index: (picture, [[7, 0, 0, 1, 1]]))
    with pytest.raises(Exception, match="split 'train', row 0: label: an object's class is 7"):
        check_rows(splits, recipe)


def test_rows_that_tell_all_their_boxes_are_not_taken_for_classes():
    rows = data.load(Data(source="emberline.data.shapes:boxes", arguments={"train": 3}), None).train
    rows.labels = [rows[index][1] for index in range(len(rows))]  # of different lengths
    data.check_splits(data.Splits(rows, rows, rows), 3, "mine", "detection")
