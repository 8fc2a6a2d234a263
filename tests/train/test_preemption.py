"""SIGTERM ends a worker at once, wherever it is, and no step is lost."""

import os
import signal

from emberline import process


def test_a_notice_is_acted_upon_in_evaluation_data_wait_and_start_up_and_loses_no_step(toy):
    settings = ("model.factory=toy:waiting_net", "data.source=toy:waiting_data")
    for place, steps in (("start", 0), ("data", 1), ("evaluation", 4)):
        gate, waiting = toy.folder / f"gate-{place}", toy.folder / "waiting"
        gate.touch()
        with toy.world(1, *settings) as (worker,):
            process.wait_until(waiting.exists, 60, f"a worker that waits in {place}")
            worker.terminate()
            worker.join(20)
            assert worker.exitcode == 75, place
        gate.unlink()
        waiting.unlink()
        assert max((event["step"] for event in toy.events("step")), default=0) >= steps
        if place == "start":
            assert not toy.run.exists()
            continue
        notice, saved = toy.events("preempted")[-1], toy.events("checkpoint")[-1]
        assert notice["step"] == saved["step"] == toy.events("step")[-1]["step"]
        assert notice["seconds_to_save"] < 10
    toy.train_world(1, *settings)
    worlds = toy.events("world")
    assert [world["step"] for world in worlds[1:]] == [event["step"] for event in toy.events("preempted")]
    assert [event["epoch"] for event in toy.events("epoch")] == [1, 2, 3, 4, 5, 6]  # none twice, none left out
    (done,) = toy.events("done")
    assert done["preemptions"] == 2
    assert done["seconds_to_save"] == max(event["seconds_to_save"] for event in toy.events("preempted"))


def test_a_worker_that_waits_in_a_collective_for_a_stopped_one_saves_all_the_same(toy):
    with toy.world(2) as workers:
        toy.wait_for_step(3)
        os.kill(workers[1].pid, signal.SIGSTOP)
        last = _last_step_after_standstill(toy)
        workers[0].terminate()
        workers[0].join(20)
        assert workers[0].exitcode == 75
    assert toy.events("preempted")[-1]["step"] == toy.events("checkpoint")[-1]["step"] == last


def _last_step_after_standstill(toy) -> int:
    """Rank 0 goes on for a step at most; it stands still once two looks in a row show the same."""
    seen: list[int] = []

    def still() -> bool:
        seen.append(toy.events("step")[-1]["step"])
        return len(seen) > 10 and len(set(seen[-10:])) == 1

    process.wait_until(still, 30, "a world that stands still")
    return seen[-1]


def test_a_notice_to_the_whole_process_group_lets_workers_save_too(toy):
    (toy.folder / "gate").touch()
    launcher = toy.start("--set", "train.checkpoint_every_s=1000")
    toy.wait_for_step(4)
    os.killpg(launcher.pid, signal.SIGTERM)  # as systemd, timeout and some batch systems send it
    toy.finish(launcher, code=75)
    (saved,) = toy.events("preempted")
    assert saved["step"] == toy.events("checkpoint")[-1]["step"] == toy.events("step")[-1]["step"] >= 4
