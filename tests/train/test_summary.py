"""What a log adds up to."""

from emberline.train.summary import summarise


def log(*events):
    return [{"time": time, "event": name, **facts} for time, name, facts in events]


def test_compression_and_pauses_between_launches_are_no_training_time():
    events = log(
        (0.0, "world", {"launch": "a"}), (10.0, "step", {"step": 1}), (11.0, "done", {}),
        (500.0, "compress_stage", {}), (700.0, "say", {}),
        (900.0, "world", {"launch": "b"}), (902.0, "step", {"step": 1}),
    )  # fmt: skip
    assert summarise(events).seconds == 13.0


def test_what_each_restart_lost_is_told_and_goodput_is_what_is_left():
    events = log(
        (0.0, "world", {"launch": "a"}), (10.0, "step", {"step": 1}),
        (11.5, "restart", {"seconds_lost": 1.5, "steps_lost": 0}),
        (20.0, "restart", {"seconds_lost": 0.5, "steps_lost": 2}), (40.0, "done", {}),
    )  # fmt: skip
    told = summarise(events)
    assert (told.lost_s, told.seconds_lost, told.steps_lost, told.goodput) == ((1.5, 0.5), 2.0, 2, 0.95)


def test_a_start_from_nothing_forgets_what_was_before():
    events = log(
        (0.0, "world", {"launch": "a"}), (10.0, "step", {"step": 9}), (11.0, "anew", {}),
        (12.0, "world", {"launch": "b"}), (15.0, "step", {"step": 1}),
    )  # fmt: skip
    assert (summarise(events).steps, summarise(events).seconds) == (1, 3.0)
