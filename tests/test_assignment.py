"""Assignment is sticky, proportional, and a ramp moves only whom it must. Equality with Envoy: tests/route."""

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from emberline.assignment import assign, bucket
from emberline.errors import InvalidSetting

UNITS = st.text(min_size=1, max_size=60)


def test_the_hash_is_xxh64_as_published():
    # Source: the test vectors of the xxHash specification, seed 0
    assert xxhash.xxh64_intdigest(b"", seed=0) == 0xEF46DB3751D8E999
    assert xxhash.xxh64_intdigest(b"abc", seed=0) == 0x44BC2CF5AD770999
    assert bucket("a", "bc") == xxhash.xxh64_intdigest(b"a:bc", seed=0) % 10_000


@given(UNITS, st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_growing_treatment_keeps_its_units_and_takes_only_from_control(unit, one, other):
    small, large = sorted((one, other))
    before = assign("salt", unit, (small, 10_000 - small))
    after = assign("salt", unit, (large, 10_000 - large))
    assert after <= before, "treated units stay treated"


@given(UNITS)
def test_an_arm_without_weight_gets_nobody_and_one_with_all_gets_everybody(unit):
    assert assign("salt", unit, (0, 10_000)) == 1
    assert assign("salt", unit, (10_000, 0)) == 0


def test_shares_are_the_weights_and_another_salt_is_another_draw():
    units = [f"unit-{number}" for number in range(20_000)]
    one = [assign("one", unit, (2000, 3000, 5000)) for unit in units]
    other = [assign("other", unit, (2000, 3000, 5000)) for unit in units]
    for variant, share in enumerate((0.2, 0.3, 0.5)):
        assert abs(one.count(variant) / len(units) - share) < 0.015
    both = sum(a == b == 0 for a, b in zip(one, other, strict=True)) / len(units)
    assert abs(both - 0.04) < 0.006, "independent of one another"


@pytest.mark.parametrize("unit", ["", "x" * 257, "é" * 129])
def test_an_unusable_unit_is_refused(unit):
    with pytest.raises(InvalidSetting, match="1 to 256 bytes"):
        assign("salt", unit, (5000, 5000))
