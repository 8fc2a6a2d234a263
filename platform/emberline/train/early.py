"""Early stopping: whether an epoch was the best so far, and whether the last best is too long ago."""

import math

from emberline.recipe import EarlyStopping
from emberline.train.evaluate import Evaluation
from emberline.train.state import Learner


def improved(settings: EarlyStopping, value: float, best: float) -> bool:
    """Whether `value` is better than `best` by more than min_delta; anything is better than NaN, which never is."""
    if math.isnan(value):
        return False
    if math.isnan(best):
        return True
    gain = best - value if settings.metric == "loss" else value - best
    return gain > settings.min_delta


def judge(learner: Learner, settings: EarlyStopping, epoch: int, seen: Evaluation) -> None:
    """Enters an epoch's evaluation into the learner's progress, and keeps its weights if they are the best."""
    value = seen.loss if settings.metric == "loss" else seen.value
    progress = learner.progress
    if improved(settings, value, float(progress["best_value"])):
        progress["best_value"].fill_(value)
        progress["best_epoch"].fill_(epoch)
        progress["bad_epochs"].fill_(0)
        learner.keep_best()
    else:
        progress["bad_epochs"].add_(1)


def out_of_patience(learner: Learner, settings: EarlyStopping | None) -> bool:
    if settings is None or settings.patience is None:
        return False
    return int(learner.progress["bad_epochs"]) >= settings.patience
