"""Texts as token ids, altered by chance: nothing is invented, and order and padding stay."""

import pytest
import torch

from emberline.models.text_augmentation import drop_tokens, splice

ROWS, TOKENS = 200, 24


@pytest.fixture
def ids():
    """Texts of 1 to 24 tokens, every token of the batch another number, 0 behind them."""
    torch.manual_seed(0)
    lengths = torch.randint(1, TOKENS + 1, (ROWS, 1))
    numbers = torch.arange(1, ROWS * TOKENS + 1).view(ROWS, TOKENS)
    return numbers * (torch.arange(TOKENS) < lengths)


def texts(ids):
    return [[token for token in row if token] for row in ids.tolist()]


def test_dropped_tokens_leave_the_others_in_order_and_padding_behind_them(ids):
    (dropped,) = drop_tokens((ids,))
    assert dropped.shape == ids.shape
    for before, after, row in zip(texts(ids), texts(dropped), dropped.tolist(), strict=True):
        assert after == sorted(set(after) & set(before))
        assert (after[0], after[-1]) == (before[0], before[-1])
        assert row[: len(after)] == after
    share = 1 - (dropped != 0).sum() / (ids != 0).sum()
    assert 0.05 < share < 0.15


def test_a_spliced_text_is_a_beginning_of_its_own_and_an_end_of_one_other(ids):
    (spliced,) = splice((ids,))
    others = 0
    for number, (before, after) in enumerate(zip(texts(ids), texts(spliced), strict=True)):
        sources = [(token - 1) // TOKENS for token in after]
        theirs = [source for source in sources if source != number]
        assert after[0] == before[0]
        assert len(set(theirs)) <= 1
        assert sources == sorted(sources, key=lambda source: source != number)  # its own come first
        others += bool(theirs)
    assert ROWS * 0.3 < others < ROWS * 0.6


def test_further_inputs_stay_and_the_same_seed_alters_alike(ids):
    further = torch.ones(ROWS, 2)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(splice((ids, further)))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] is further
