"""Assignment in Python is byte-equal to assignment in Envoy. This guards every upgrade of Envoy."""

import random

import pytest

from emberline.assignment import assign

NUM_UNITS = 10_000


@pytest.fixture(scope="module")
def units() -> list[str]:
    """Ids as people have them: numbers, UUIDs, addresses, other scripts, emoji, one byte, all 256 bytes."""
    rng = random.Random(7)
    alphabets = (
        "0123456789",
        "abcdef0123456789-",
        "abcxyz@.+_",
        "äöüßéñ",
        "данныеλόγος",
        "日本語の単位",
        "😀🚀🧪",
        'a b"\\%{}:;,=',
    )
    found = {"0", "x", "é" * 128, "z" * 256, "a:b", "%REQ(x)%", r"\1", "null"}
    while len(found) < NUM_UNITS:
        alphabet = rng.choice(alphabets)
        text = "".join(rng.choices(alphabet, k=rng.randint(1, 24)))
        if text == text.strip():  # space around a header's value is not part of it
            found.add(text)
    return sorted(found)


@pytest.fixture(scope="module")
def router(start_router):
    return start_router(weight=1000)


def arms(router, units: list[str]) -> list[str]:
    answers = router.ask([(unit, {"n": 1}) for unit in units])
    assert {answer.status for answer in answers} == {200}
    return [answer.headers["x-variant"] for answer in answers]


def test_envoy_assigns_ten_thousand_units_as_python_does(router, units):
    expected = [("int8", "fp32")[assign("digits-int8", unit, (1000, 9000))] for unit in units]
    got = arms(router, units)
    assert got == expected
    assert 800 < got.count("int8") < 1200


def test_a_ramp_moves_only_the_units_that_must_move(router, units, write_experiment):
    sample = units[::4]
    before = arms(router, sample)
    router.await_config(write_experiment(router.experiments, 3000, revision=1))
    after = arms(router, sample)
    assert after == [("int8", "fp32")[assign("digits-int8", unit, (3000, 7000))] for unit in sample]
    moved = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    assert moved
    assert set(moved) == {("fp32", "int8")}


@pytest.mark.parametrize("salt", [r"back\slash \1 \\2 \\", "ünïcode: %REQ(x-unit-id)% {}"])
def test_a_salt_stands_for_itself_whatever_is_in_it(router, units, write_experiment, salt):
    router.await_config(write_experiment(router.experiments, 5000, revision=2, salt=salt))
    sample = units[::40]
    assert arms(router, sample) == [("int8", "fp32")[assign(salt, unit, (5000, 5000))] for unit in sample]


def test_a_unit_keeps_its_variant_over_both_protocols(router, units):
    for unit in units[:20]:
        plain = router.post("/predictions/digits", x_unit_id=unit.encode())
        oip = router.post("/v2/models/digits/infer", x_unit_id=unit.encode())
        assert plain.headers["x-variant"] == oip.headers["x-variant"]
        assert oip.json()["path"] == plain.json()["path"] == f"/predictions/digits/{oip.headers['x-model-version']}"
