"""A worker that stands still is named and replaced; one that is only slow is told, and left alone."""

from dataclasses import replace

import pytest

from emberline import process
from emberline.recipe import load_recipe
from emberline.train.folder import training_digest
from emberline.train.hang import Look, judge, limit_s, used_of, watch_of
from emberline.train.pulse import Beat, Board, Phase, Pulse, Work
from emberline.train.stack import stack_of
from emberline.train.straggler import is_slow, ratios

WATCHED = ("--set", "train.hang_after_s=auto")

BEAT = Beat(
    generation=1, pid=1, step=9, steps_done=9, exchanges=20, around=Phase.COMPUTE, phase=Phase.COMPUTE, since=0.0,
    step_s=0.1, longest_s=0.2,
)  # fmt: skip
WAITS = replace(BEAT, phase=Phase.EXCHANGE, exchanges=21)


def looks(*beats: Beat, quiet_s: float, busy: bool = False) -> list[Look]:
    return [Look(rank, 100 + rank, beat, quiet_s, busy=busy) for rank, beat in enumerate(beats)]


def blamed(*beats: Beat, quiet_s: float, **more) -> list[int]:
    return [one.local_rank for one in judge(looks(*beats, quiet_s=quiet_s), **more)]


def test_a_stopped_worker_is_named_with_its_stack_and_replaced_and_one_that_computes_long_is_not(toy, undisturbed):
    (toy.folder / "busy-0-5").touch()
    (toy.folder / "stop-1-12").touch()
    output = toy.train(*WATCHED)
    assert not (toy.folder / "busy-0-5").exists()
    (hang,) = toy.events("hang")
    (before, after) = toy.events("world")
    assert (hang["rank"], hang["pid"], hang["phase"]) == (1, before["pids"][1], "compute")
    assert hang["step"] == 4  # its twelfth call: three a step, and none in the last step of an epoch
    assert hang["stack"][0].startswith(f"augment ({toy.folder}/toy.py:")
    assert after["pids"][1] != hang["pid"]
    assert [event["reason"] for event in toy.events("worker_exit")] == ["it hung, and was killed to be replaced"]
    (restart,) = toy.events("restart")
    assert restart["steps_lost"] == 0
    assert f"rank 1 (pid {hang['pid']}) hangs in compute of step 4" in output
    assert toy.events("done")[0]["hangs"] == 1
    assert toy.weights() == undisturbed.weights()


def test_a_worker_that_sleeps_in_its_own_code_is_replaced_and_not_the_one_that_waits_for_it(toy):
    (toy.folder / "sleep-0-10").touch()
    launcher = toy.start(*WATCHED)
    process.wait_until(lambda: toy.events("hang"), 150, "a hang in the log")
    (toy.folder / "sleep-0-10").unlink()
    toy.finish(launcher)
    (hang,) = toy.events("hang")
    assert (hang["rank"], hang["phase"], hang["step"]) == (0, "compute", 3)
    assert "does not use the processor" in hang["why"]
    assert any("augment" in frame for frame in hang["stack"])


def test_a_slow_rank_is_told_with_its_ratio_and_not_replaced(toy):
    (toy.folder / "slow-1").touch()
    toy.train_world(2, "train.epochs=24")
    (slow,) = toy.events("straggler")
    assert slow["rank"] == 1
    assert slow["ratio"] > 1.5
    assert toy.events("done")[0]["slow_ranks"] == {"1": slow["ratio"]}
    assert len(toy.events("world")) == 1


def test_who_waits_in_a_collective_is_not_to_blame_for_it():
    assert blamed(BEAT, WAITS, quiet_s=3.1) == [0]
    assert blamed(WAITS, WAITS, quiet_s=3.1) == []


def test_a_collective_in_which_all_wait_is_given_up_in_the_end_by_all_or_by_who_fell_behind():
    assert blamed(WAITS, WAITS, quiet_s=500) == [0, 1]
    assert blamed(WAITS, replace(WAITS, exchanges=20), quiet_s=500) == [1]


def test_a_stopped_process_is_to_blame_wherever_it_was_stopped():
    waiting, stopped = looks(WAITS, WAITS, quiet_s=2.5)
    assert [one.local_rank for one in judge([waiting, replace(stopped, stopped_s=2.1)])] == [1]
    assert judge([waiting, replace(stopped, stopped_s=1.0)]) == []


def test_the_deadline_follows_the_steps_and_the_phase():
    assert limit_s(BEAT, busy=False) == 3.0
    slow = replace(BEAT, step_s=20.0, longest_s=22.0)
    assert limit_s(slow, busy=False) == 80.0
    assert limit_s(replace(BEAT, longest_s=30.0), busy=False) == 60.0
    assert limit_s(BEAT, busy=True) == 60.0
    assert limit_s(replace(BEAT, phase=Phase.DATA), busy=False) == 60.0
    assert limit_s(replace(BEAT, phase=Phase.EVALUATION), busy=False) == 120.0
    assert limit_s(replace(BEAT, steps_done=0), busy=False) == 600.0  # it may compile
    assert limit_s(replace(WAITS, around=Phase.SAVING), busy=False) == 1200.0
    assert limit_s(BEAT, busy=False, least_s=100) == limit_s(BEAT, busy=True, least_s=100) == 100
    assert blamed(slow, quiet_s=79) == []
    assert blamed(BEAT, quiet_s=5.9, patience=2.0) == []


def test_who_is_kept_from_the_processor_by_others_computes_all_the_same():
    assert used_of((1.0, 1.0), (1.1, 2.9), seconds=2.0) == pytest.approx(1.0)  # one that computes, on a crowded machine
    assert used_of((1.0, 1.0), (1.002, 1.5), seconds=2.0) < 0.01  # one that sleeps, and looks now and then
    assert used_of((1.0, 1.0), (1.0, 1.0), seconds=2.0) == 0.0


def test_never_watches_nobody_and_is_no_other_training(toy):
    assert watch_of("never", Board(1)) is None
    recipes = [load_recipe(toy.folder / "toy.yaml", (f"train.hang_after_s={s}",)) for s in ("never", "auto", 30)]
    assert len({training_digest(one) for one in recipes}) == 1


def test_a_beat_is_read_as_it_was_written_and_names_what_it_is_a_part_of():
    board = Board(2)
    assert board.read(1) is None
    pulse = Pulse(board.path, local_rank=1)
    pulse.joined(4)
    pulse.begin_step(7)
    with pulse.during(Phase.EXCHANGE):
        beat = board.read(1)
    assert (beat.generation, beat.step, beat.exchanges) == (4, 7, 1)
    assert (beat.around, beat.phase) == (Phase.COMPUTE, Phase.EXCHANGE)
    assert board.read(1).phase == Phase.COMPUTE
    assert board.read(0) is None
    board.close()


def test_a_ranks_pace_is_held_against_the_median_of_the_others():
    assert ratios([Work(1.0, 100), Work(1.0, 50), Work(3.0, 100), Work(0.0, 0)]) == pytest.approx(
        {0: 1 / 2.5, 1: 1.0, 2: 2.0}
    )
    assert ratios([Work(1.0, 100)]) == {}
    assert is_slow(Work(3.0, 100), 2.0, seconds=5.0)
    assert not is_slow(Work(3.0, 100), 1.4, seconds=5.0)
    assert not is_slow(Work(0.3, 100), 3.0, seconds=5.0)  # next to nothing, three times


def test_without_py_spy_a_stack_says_what_brings_it(monkeypatch, tmp_path):
    monkeypatch.setattr("emberline.train.stack.sysconfig.get_path", lambda _: str(tmp_path))
    assert "pip install 'emberline[stacks]'" in stack_of(1)[0]
