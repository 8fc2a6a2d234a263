"""Workers forked from a process that has their modules loaded, and the page each of them keeps."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from emberline import process
from emberline.serve import ledger, page, workers
from emberline.serve.ledger import Ledger


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """The process that forks, with its paths; its modules are as few as a test needs."""
    work = tmp_path_factory.mktemp("work")
    for name in ("temp", "cwd"):
        (work / name).mkdir()
    paths = workers.Paths(work)
    child = workers.start(paths, dict(os.environ), work / "log", modules=("orjson",))
    try:
        yield paths, child
    finally:
        child.stop(0)


def run(paths, script, *arguments, **how):
    return subprocess.Popen(
        [paths.python, script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how
    )


@pytest.fixture
def script(tmp_path):
    def write(text):
        (tmp_path / "script.py").write_text(text)
        return tmp_path / "script.py"

    return write


def test_worker_has_its_own_arguments_environment_folder_and_output_and_all_modules_loaded(parent, script, tmp_path):
    text = (
        "import os, sys; print(sys.argv[1:], os.environ['COLOUR'], os.getcwd(), 'orjson' in sys.modules); sys.exit(7)"
    )
    child = run(parent[0], script(text), "a", "b c", cwd=tmp_path, env={**os.environ, "COLOUR": "red"})
    output, _ = child.communicate(timeout=120)
    assert output.strip() == f"['a', 'b c'] red {tmp_path} True"
    assert child.returncode == 7


def test_worker_ends_when_what_stands_in_for_it_is_killed(parent, script):
    child = run(parent[0], script("import os, time; print(os.getpid(), flush=True); time.sleep(600)"))
    worker = psutil.Process(int(child.stdout.readline()))
    child.kill()
    child.wait()
    process.wait_until(lambda: not worker.is_running(), 10, "the worker's end")


def test_worker_without_a_parent_is_started_all_the_same_and_says_so(tmp_path, script):
    (tmp_path / "temp").mkdir()
    stand_in = workers.standin_command(workers.Paths(tmp_path), wait_s=0.1)
    told = subprocess.run(
        [*stand_in, script("print('on my own')")], capture_output=True, text=True, check=True, timeout=60
    )
    assert "no worker could be forked" in told.stdout
    assert told.stdout.endswith("on my own\n")


def test_worker_on_a_full_disk_answers_without_a_page_and_says_so(tmp_path, mount_disk, fill_disk):
    code = (
        "import sys; from pathlib import Path; from emberline.serve.page import Page;"
        "page = Page(Path(sys.argv[1])); page.begin('m', '1'); page.end([200]); print('answered')"
    )
    with mount_disk(tmp_path, 1):
        fill_disk(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, "answered\n"), done.stderr
        assert "No space left on device; this worker's batches are not counted" in done.stderr
        assert page.read_all(tmp_path) == []


def test_page_tells_batches_and_a_dead_workers_counts_are_kept(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from emberline.serve.page import Page;"
        "page = Page(Path(sys.argv[1])); page.begin('m', '1'); page.end([200, 400, 503]);"
        "page.begin('m', '1'); print('busy', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    book = Ledger(tmp_path)
    try:
        child.stdout.readline()
        began = time.monotonic()
        process.wait_until(lambda: time.monotonic() - began > 0.1, 5, "some time")
        book.look()
        (reading,) = book.readings
        assert (reading.pid, reading.key) == (child.pid, ("m", "1"))
        assert reading.busy_s > 0.1
        assert reading.counts.statuses == (1, 1, 1)
        assert reading.counts.batches == (0, 0, 1, 0, 0, 0, 0, 0, 0), "one batch of up to four"
        assert book.hung(0.05) == [(child.pid, f"it has been at one batch for {reading.busy_s:.1f} s")]
        child.send_signal(signal.SIGSTOP)
        process.wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, 5, "the stop")
        assert book.hung(60) == [], "one look is not enough"
        assert book.hung(60) == [(child.pid, "it is stopped")]
    finally:
        ledger.kill(child.pid)
        child.wait()
    book.look()
    assert book.readings == []
    assert book.counts(("m", "1")).rows == 3
    assert not list(tmp_path.iterdir())
    assert page.read_all(tmp_path) == []
