"""Cascades: the cheapest rules that are good enough on validation rows, told and written down."""

import json

import numpy as np
import pytest

from emberline.cascade import read_found
from emberline.compress import thresholds
from emberline.compress.run import compress_recipe
from emberline.compress.thresholds import Answers, Cost
from emberline.errors import InvalidSetting, StageFailed

COSTS = [Cost((1, 10), (each, 10 * each)) for each in (1.0, 10.0, 100.0)]  # the same for a row, few or many
QUICK = {"version": "2.0", "passes": [{"artifact": "int8", "confidence": "tuned"}, {"artifact": "fp32"}]}


def rows(confidence, right_light, right_full):
    correct = np.asarray([right_light, right_full], bool)
    sure = np.asarray([confidence, np.ones(len(confidence))])
    return Answers(sure, sure, correct, np.zeros(len(confidence)))


def lists(light, full, gain, groups):
    relevance = np.asarray([light, full], float)
    return Answers(relevance, relevance, np.zeros_like(relevance, bool), np.asarray(gain, float), np.asarray(groups))


def test_only_rows_below_the_threshold_pay_for_the_heavy_model():
    answers = rows([0.5, 0.6, 0.9, 0.99], [0, 0, 1, 1], [1, 1, 0, 1])
    judged = thresholds.judge(answers, [(None, 0.7)], COSTS[:2], top=25)
    assert (judged.quality, judged.reached, judged.cost_us) == (1.0, (1.0, 0.5), 6.0)


def test_the_cheapest_threshold_that_is_good_enough_is_taken():
    answers = rows([0.5, 0.6, 0.9, 0.99], [0, 0, 0, 1], [1, 1, 1, 1])
    choices = [[(None, one) for one in (0.1, 0.55, 0.7, 0.95, 1.0)]]
    assert thresholds.cheapest(answers, choices, COSTS[:2], least=0.75, top=25).rules == ((None, 0.7),)
    assert thresholds.cheapest(answers, choices, COSTS[:2], least=1.0, top=25).rules == ((None, 0.95),)
    assert thresholds.cheapest(answers, [choices[0][:2]], COSTS[:2], least=0.9, top=25) is None


def test_rankings_are_judged_request_by_request():
    # the second request's best item is thrown away by the first pass; the first request's is not
    answers = lists([3, 2, 1, 3, 2, 1], [1, 2, 3, 1, 2, 3], [0, 1, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1])
    judged = thresholds.judge(answers, [(2, None)], COSTS[:2], top=3)
    assert judged.reached == (1.0, pytest.approx(2 / 3))
    # by hand: 1 / log2(1 + 1) for the first; third of three, 1 / log2(3 + 1), for the second
    assert judged.quality == pytest.approx((1 + 0.5) / 2)
    assert thresholds.alone(answers, 1, 3) == pytest.approx((1 / np.log2(3) + 1) / 2)


def test_fewer_rows_at_once_cost_more_each():
    cost = Cost((1, 100), (10.0, 109.0))
    assert [cost.of(rows) for rows in (0.5, 1, 2, 100, 200)] == pytest.approx([5, 10, 11, 109, 218])


def test_no_pass_keeps_more_than_the_one_before():
    answers = Answers(*[np.ones((3, 4))] * 2, np.ones((3, 4), bool), np.ones(4), np.zeros(4))
    choices = [[(2, None)], [(4, None), (1, None)]]
    assert thresholds.cheapest(answers, choices, COSTS, least=0.0, top=1).rules == ((2, None), (1, None))


def compress(run, **cascade):
    archive = {"model": "small", "versions": {"fp32": "1.0"}, "cascades": {"quick": {**QUICK, **cascade}}}
    compress_recipe(run.recipe_path, [f"archive={json.dumps(archive)}"], run.runs)


def test_compress_tunes_and_tells_cost_and_accuracy(compressed):
    compress(compressed, max_drop=0.01)
    found = read_found(compressed.runs / "small", "quick")
    assert found.quality >= found.alone - 0.01
    assert found.passes[0].confidence is not None
    # of nets this small half of the rows may cost no less than all, so the rule that sends on all may be the cheapest
    assert found.passes[0].reached == 1.0 >= found.passes[1].reached > 0.0
    assert found.cpu_us == pytest.approx(sum(one.reached * one.cpu_us for one in found.passes))
    assert found.test_quality is not None
    assert any("cascade quick: int8 confidence" in line for line in compressed.log_lines() if line)
    compress(compressed, max_drop=0.01)
    assert compressed.log_lines()[-1].endswith("(reused)")


def test_rules_of_the_recipe_that_lose_too_much_are_refused(compressed):
    passes = [{"artifact": "int8", "confidence": 0.0001}, {"artifact": "fp32"}]
    with pytest.raises(StageFailed, match=r"accuracy is 0\.\d+ on validation rows, and 0\.\d+ of fp32 alone"):
        compress(compressed, passes=passes, max_drop=0.0)


def test_keep_cannot_be_tuned_where_no_rows_belong_together(compressed):
    with pytest.raises(InvalidSetting, match="groups"):
        compress(compressed, passes=[{"artifact": "int8", "keep": "tuned"}, {"artifact": "fp32"}], max_drop=0.1)
