"""A worker's own words, found among everybody's."""

import pytest

from emberline import process
from emberline.serve import modellog
from emberline.serve.tracebacks import Tracebacks

LOG = """\
2026-01-01T10:00:00,000 INFO  W-9000-digits_1.0-stdout Torch worker started.
2026-01-01T10:00:00,000 INFO  W-9001-digits_1.1-stdout Torch worker started.
2026-01-01T10:00:01,000 INFO  W-9001-digits_1.1-stdout Backend worker process died.
2026-01-01T10:00:01,000 INFO  W-9000-digits_1.0-stdout [PID]17
2026-01-01T10:00:01,000 INFO  W-9001-digits_1.1-stdout Traceback (most recent call last):
2026-01-01T10:00:01,000 INFO  W-9001-digits_1.1-stdout   File "handler.py", line 8, in initialize
2026-01-01T10:00:01,000 INFO  W-9001-digits_1.1-stdout KeyError: 'weight'
"""


def test_last_traceback_of_one_version_is_found(tmp_path):
    log = tmp_path / "model.log"
    log.write_text(LOG)
    assert modellog.last_words(log, "digits", "1.1").splitlines() == [
        "Backend worker process died.",
        "Traceback (most recent call last):",
        '  File "handler.py", line 8, in initialize',
        "KeyError: 'weight'",
    ]


def test_a_model_that_could_not_be_loaded_tells_why_and_not_how_its_worker_died(tmp_path):
    lines = [
        "Failed to load model digits, exception lost in an earlier try",
        "Backend worker process died.",
        "RuntimeError: 500 - Unknown exception",
        "Failed to load model digits, exception cannot init",
        "Traceback (most recent call last):",
        "RuntimeError: cannot init",
        "Backend worker process died.",
        "Traceback (most recent call last):",
        "RuntimeError: 500 - Unknown exception",
    ]
    log = tmp_path / "model.log"
    log.write_text("".join(f"2026-01-01T10:00:00,000 INFO  W-9000-digits_1.0-stdout {line}\n" for line in lines))
    assert modellog.last_words(log, "digits", "1.0").splitlines() == lines[3:6]


def test_a_failure_to_load_does_not_hide_a_later_death(tmp_path):
    lines = ["Failed to load model digits, exception x", "Backend worker process died.", "Torch worker started."]
    lines += ["Backend worker process died.", "KeyError: 1"]
    log = tmp_path / "model.log"
    log.write_text("".join(f"2026-01-01T10:00:00,000 INFO  W-9000-digits_1.0-stdout {line}\n" for line in lines))
    assert modellog.last_words(log, "digits", "1.0").splitlines() == lines[3:]


def test_version_without_a_traceback_gives_its_output(tmp_path):
    log = tmp_path / "model.log"
    log.write_text(LOG)
    assert modellog.last_words(log, "digits", "1.0").splitlines() == ["Torch worker started.", "[PID]17"]


def test_lines_of_an_earlier_start_are_left_out(tmp_path):
    log = tmp_path / "model.log"
    log.write_text(LOG)
    since = modellog.size_of(log)
    assert modellog.last_words(log, "digits", "1.1", since=since) == ""


def test_rotated_log_is_read_from_its_start(tmp_path):
    log = tmp_path / "model.log"
    log.write_text(LOG)
    assert modellog.last_words(log, "digits", "1.1", since=10**9).endswith("KeyError: 'weight'")


def test_packages_that_a_versions_workers_loaded_and_passed_over_are_each_told_once(tmp_path):
    lines = ["passed over int8.pt2: this CPU lacks avx512_vnni", "loaded fp32.pt2 (aoti, fp32) in 0.08 s"]
    log = tmp_path / "model.log"
    log.write_text(traceback_lines("9000-m_1.0", *lines) + traceback_lines("9001-m_1.1", *lines))
    since = modellog.size_of(log)
    with log.open("a") as file:
        file.writelines(traceback_lines(f"{worker}-m_1.1", *lines) for worker in (9001, 9002))
    found = modellog.loading(log, "m", "1.1", since=since)
    assert found == modellog.Loading(("fp32.pt2 (aoti, fp32)",), ("int8.pt2: this CPU lacks avx512_vnni",))
    assert modellog.loading(log, "m", "1.0", since=since) == modellog.Loading((), ())


def test_packages_of_content_that_was_replaced_since_are_not_told(tmp_path):
    begin = "Torch worker started."
    old = [begin, "passed over int8.pt2: this CPU lacks avx512_vnni", "loaded fp32.pt2 (aoti, fp32) in 0.08 s"]
    log = tmp_path / "model.log"
    log.write_text(traceback_lines("9000-m_1.0", *old) + traceback_lines("9001-m_1.0", *old))
    with log.open("a") as file:  # one of them still has the old content
        file.write(traceback_lines("9001-m_1.0", begin, "loaded int8.pt2 (aoti, int8) in 0.10 s"))
    assert modellog.loading(log, "m", "1.0") == modellog.Loading(("int8.pt2 (aoti, int8)",), ())


def test_log_that_is_not_there_says_nothing(tmp_path):
    assert modellog.size_of(tmp_path / "model.log") == 0
    assert modellog.last_words(tmp_path / "model.log", "digits", "1.1") == ""


def traceback_lines(worker, *texts):
    return "".join(f"2026-01-01T10:00:00,000 INFO  W-{worker}-stdout {text}\n" for text in texts)


def test_every_traceback_is_told_once_with_its_cause_and_whole_though_workers_speak_at_once(tmp_path):
    log = tmp_path / "model.log"
    log.write_text(LOG)
    found = Tracebacks(log, since=len(LOG))
    assert not found.look(), "what was there before is told already"
    first = ["Traceback (most recent call last):", '  File "h.py", line 1, in handle', "KeyError: 'x'"]
    chain = ["", "During handling of the above exception, another exception occurred:", "", *first[:2], "ValueError: y"]
    with log.open("a") as file:
        file.write(traceback_lines("9000-m_1.0", *first[:2]))
        file.write(traceback_lines("9001-m_1.1", *first))
    assert {(one.name, one.text): times for one, times in found.look().items()} == {("m_1.1", "\n".join(first)): 1}
    with log.open("a") as file:
        file.write(traceback_lines("9000-m_1.0", first[2], *chain, "an answer"))
    told = [one.text for one in found.look()]
    assert told == ["\n".join(first)] or told == ["\n".join(first), "\n".join(chain[3:])]
    log.rename(tmp_path / "model.log.1")
    with (tmp_path / "model.log.1").open("a") as file:
        file.write(traceback_lines("9002-m_1.0", *first[:2]))
    log.write_text(traceback_lines("9002-m_1.0", "OSError: z"))
    assert [one.text.splitlines()[-1] for one in found.look()] == ["OSError: z"]


@pytest.mark.long
def test_log_that_is_rotated_again_and_again_goes_on_from_its_newest_old_file(start, archives):
    server = start(archives[0]).ready()
    log = server.folder / "state" / "serve" / "model.log"
    lines = 65_000  # more than three files of 20 MB
    assert server.ask("1.0", print_lines=lines).status_code == 200
    process.wait_until(lambda: f" line {lines - 1} " in log.read_text(), 60, "the last line")

    def numbers(path):
        return [int(line.split(" line ")[1].split()[0]) for line in path.read_text().splitlines() if " line " in line]

    old = [numbers(log.with_name(f"model.log.{index}")) for index in (3, 2, 1)]
    assert [part[-1] + 1 for part in old] == [part[0] for part in (*old[1:], numbers(log))]
