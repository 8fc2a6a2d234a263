"""What is done about what was seen, case by case."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberline.serve import decide
from emberline.serve.decide import Adopt, Died, Kill, Memory, Restart, Retire, Revive, Seen, TellDead, TellRecovered
from emberline.serve.decide import VersionSeen as Version

KEY = ("digits", "1.0")
GOOD = Version(registered=True, num_ready=2, num_workers=2)
DEAD = Version(registered=True, num_ready=0, num_workers=2)


def follow(memory, *observations):
    """Actions of a series of observations, each with its time."""
    actions = []
    for seen in observations:
        memory, some = decide.decide(memory, seen)
        actions += [(seen.now, action) for action in some]
    return actions


def healthy(now, version=GOOD):
    return Seen(now, running=True, answering=True, versions={KEY: version})


def ended(now):
    return Seen(now, running=False, answering=False)


def silent(now):
    return Seen(now, running=True, answering=False)


def test_healthy_server_asks_for_nothing():
    assert follow(Memory(started=0), healthy(1), healthy(2)) == []


def test_death_is_told_once_and_answered_after_the_back_off():
    actions = follow(Memory(started=0), ended(1.0), ended(1.2), ended(1.5), healthy(5))
    assert actions == [(1.0, Died(0.5)), (1.5, Restart())]


def test_quick_deaths_wait_longer_each_time_up_to_a_limit():
    assert [decide.back_off_s(n) for n in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_death_after_a_stable_time_is_answered_at_once():
    memory = Memory(started=0, quick_deaths=5)
    assert follow(memory, ended(200), ended(201)) == [(200, Died(0.0)), (201, Restart())]


def test_deaths_in_a_row_are_counted_over_restarts():
    actions = follow(Memory(started=0), ended(1), ended(2), ended(3), ended(4), ended(5))
    assert actions == [(1, Died(0.5)), (2, Restart()), (3, Died(1.0)), (4, Restart()), (5, Died(2.0))]


def test_silent_server_is_killed_after_its_time_and_not_before():
    times = [0, decide.SILENT_S - 1, decide.SILENT_S]
    assert follow(Memory(started=0), *map(silent, times)) == [(decide.SILENT_S, Kill(decide.SILENT_S))]


def test_one_answer_ends_the_silence():
    observations = [silent(0), silent(15), healthy(16), silent(17), silent(30)]
    assert follow(Memory(started=0), *observations) == []


def test_short_outage_of_a_version_is_not_worth_a_word():
    assert follow(Memory(started=0), healthy(0, DEAD), healthy(9, DEAD), healthy(10)) == []


def test_long_outage_is_told_once_and_so_is_its_end():
    observations = [healthy(0, DEAD), healthy(11, DEAD), healthy(12, DEAD), healthy(40), healthy(41)]
    assert follow(Memory(started=0), *observations) == [(11, TellDead(KEY, 11)), (40, TellRecovered(KEY, 40))]


def test_version_torchserve_gave_up_on_is_revived_and_again_after_the_same_time():
    every = decide.REVIVE_AFTER_S
    observations = [healthy(t, DEAD) for t in (0, 20, every, every + 1, 2 * every)]
    revived = [at for at, action in follow(Memory(started=0), *observations) if action == Revive(KEY)]
    assert revived == [every, 2 * every]


def test_version_unregistered_by_somebody_is_retired():
    assert follow(Memory(started=0), healthy(1, Version(registered=False))) == [(1, Retire(KEY))]


def test_retired_version_that_is_registered_again_is_adopted():
    gone = Version(registered=False, wanted=False)
    observations = [healthy(1, gone), healthy(2, replace(GOOD, wanted=False))]
    assert follow(Memory(started=0), *observations) == [(2, Adopt(KEY))]


@pytest.mark.parametrize(
    ("version", "ready"),
    [
        (GOOD, True),
        (replace(GOOD, num_ready=1), True),
        (DEAD, False),
        (replace(GOOD, mismatch="got [1], expected [2]"), False),
        (replace(GOOD, failed_probes=1), True),
        (replace(GOOD, failed_probes=2), False),
        (Version(registered=False), False),
    ],
)
def test_version_is_ready_when_it_answers_and_rightly(version, ready):
    assert decide.is_ready(version) is ready


def test_full_queue_says_nothing_about_the_answer():
    assert [decide.next_failed(1, outcome) for outcome in ("busy", "failed", "matched", "mismatched")] == [1, 2, 0, 0]


@given(st.lists(st.sampled_from(["ended", "silent", "good", "dead"]), max_size=60), st.floats(0.1, 60))
def test_every_restart_follows_a_death_told_before(states, step_s):
    make = {"ended": ended, "silent": silent, "good": healthy, "dead": lambda now: healthy(now, DEAD)}
    observations = [make[state](step_s * (i + 1)) for i, state in enumerate(states)]
    told = [type(action) for _, action in follow(Memory(started=0), *observations) if type(action) in (Died, Restart)]
    pairs = list(itertools.pairwise(told))
    assert told[:1] in ([], [Died])
    assert (Restart, Restart) not in pairs
