"""What a long piece of work shows, on a terminal and elsewhere."""

import pytest
from rich.console import Console

from emberline.process import wait_until
from emberline.runlog import RunLog, read_events


def test_silent_work_is_said_to_go_on_and_work_that_tells_of_itself_is_not(capfd):
    log, shown = RunLog(), ""

    def said() -> bool:
        nonlocal shown
        shown += capfd.readouterr().err
        return "export goes on, 0 s" in shown

    with log.waiting("export", every_s=0.05):
        wait_until(said, 10, "the line that says so")
    with log.waiting("finetune", every_s=60):
        log.say("one step")
    assert "finetune goes on" not in capfd.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_a_total_that_is_known_later_is_shown(terminal, capfd):
    log = RunLog()
    log.console = Console(stderr=True, force_terminal=terminal)
    with log.progress("finetune", total=None) as advance:
        for _ in range(3):
            advance(1, 3, loss=0.5)
    assert "3/3" in capfd.readouterr().err


def test_a_servers_log_is_set_aside_when_it_has_grown_and_no_event_is_lost(tmp_path):
    path = tmp_path / "serve.jsonl"
    log = RunLog(path, quiet=True, max_bytes=300)
    for number in range(7):
        log.event("death", number=number, words="x" * 40)
    kept = [event["number"] for one in (tmp_path / "serve.jsonl.1", path) for event in read_events(one)]
    assert kept == list(range(kept[0], 7))
    assert len(kept) > 3
    assert path.stat().st_size <= 300
