"""Children end with their parent, however it ends. The parents under test are real processes that get killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from emberline import process
from emberline.errors import EmberlineError, InvalidOption, StageFailed

# a parent that starts, under a keeper, a child that starts a grandchild in a session of its own; each writes its pid
PARENT = """
import sys, time
from pathlib import Path
from emberline import process
folder = Path(sys.argv[1])
child = process.start([sys.executable, "-c", (folder / "child.py").read_text(), folder], name="child", grace_s=1.0)
(folder / "pids.partial").write_text(f"{child._keeper.pid} {child.pid}")
(folder / "pids.partial").rename(folder / "pids")
while True:
    child.poll()
    time.sleep(0.1)
"""
CHILD = """
import subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
{ignore}
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
grandchild = subprocess.Popen([sys.executable, "-c", code], start_new_session={own_session})
(folder / "grandchild.partial").write_text(str(grandchild.pid))
(folder / "grandchild.partial").rename(folder / "grandchild")
time.sleep(600)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.fixture
def family(tmp_path):
    """Starts a parent with a kept child and grandchild; returns their pids by name."""
    started = []

    def begin(*, ignore="", own_session=True):
        (tmp_path / "child.py").write_text(CHILD.format(ignore=ignore, own_session=own_session))
        parent = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path])
        process.wait_until((tmp_path / "grandchild").is_file, 20, "the grandchild")
        process.wait_until((tmp_path / "pids").is_file, 20, "the child's pid")
        keeper, child = map(int, (tmp_path / "pids").read_text().split())
        grandchild = int((tmp_path / "grandchild").read_text())
        started.extend([parent, keeper, child, grandchild])
        return {"parent": parent, "keeper": keeper, "child": child, "grandchild": grandchild}

    yield begin
    for one in started:
        pid = getattr(one, "pid", one)
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
        if one is not pid:
            one.wait()


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_gone(pids):
    return lambda: not any(is_alive(pid) for pid in pids)


def test_killed_parent_takes_child_and_detached_grandchild_along(family):
    members = family()
    members["parent"].kill()
    members["parent"].wait()
    pids = [members[name] for name in ("child", "keeper", "grandchild")]
    process.wait_until(all_gone(pids), 10, "the whole family being gone")


def test_child_deaf_to_sigterm_is_killed_within_ten_seconds(family):
    members = family(ignore=STUBBORN)
    members["parent"].kill()
    members["parent"].wait()
    process.wait_until(all_gone([members["child"], members["grandchild"]]), 10, "the whole family being gone")


def test_killed_keeper_takes_the_child_and_its_session_along(family):
    members = family(own_session=False)
    os.kill(members["keeper"], signal.SIGKILL)
    process.wait_until(all_gone([members["child"], members["grandchild"]]), 10, "child and grandchild being gone")
    assert is_alive(members["parent"].pid)


def test_killed_keeper_is_told_as_a_death_by_sigkill():
    child = process.start([sys.executable, "-c", "import time; time.sleep(600)"], name="orphan")
    child._keeper.kill()
    assert child.wait(10) == 128 + signal.SIGKILL
    process.wait_until(lambda: not is_alive(child.pid), 10, "the child being gone")


def test_stop_passes_sigterm_on_and_returns_the_exit_code():
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(flush=True)\n"
    child = process.start([sys.executable, "-c", code + "while True: time.sleep(60)"], name="polite")
    process.wait_until(lambda: handles_sigterm(child.pid), 10, "its handler")
    assert child.stop() == 7


def test_stop_kills_what_ignores_sigterm():
    child = process.start([sys.executable, "-c", STUBBORN + "\nimport time\ntime.sleep(600)"], name="stubborn")
    process.wait_until(lambda: ignores_sigterm(child.pid), 10, "its deafness")
    began = time.monotonic()
    assert child.stop(grace_s=0.5) == 128 + signal.SIGKILL
    assert time.monotonic() - began < 5
    assert not is_alive(child.pid)


def test_death_by_signal_is_told_as_128_plus_its_number():
    child = process.start([sys.executable, "-c", "import time; time.sleep(600)"], name="victim")
    child.send(signal.SIGKILL)
    assert child.wait(10) == 128 + signal.SIGKILL


def test_program_that_cannot_be_executed_is_told_at_the_start():
    with pytest.raises(StageFailed, match="/nowhere/java did not start: 2 No such file or directory"):
        process.start(["/nowhere/java", "-version"], name="java")


def test_folder_that_is_not_there_is_told_at_the_start(tmp_path):
    with pytest.raises(StageFailed, match="did not start"):
        process.start([sys.executable, "-c", ""], name="homeless", cwd=tmp_path / "nowhere")


def test_output_goes_to_the_log(tmp_path):
    child = process.start([sys.executable, "-c", "print('hello')"], name="talker", log=tmp_path / "log")
    assert child.wait(10) == 0
    assert (tmp_path / "log").read_text() == "hello\n"


def test_failed_starts_leak_no_descriptors():
    before = count_descriptors()
    for _ in range(5):
        with pytest.raises(StageFailed):
            process.start(["/nowhere/java"], name="java")
        with pytest.raises(StageFailed):
            process.start([sys.executable], name="homeless", cwd=Path("/nowhere"))
        process.start([sys.executable, "-c", ""], name="short").stop()
    assert count_descriptors() == before


def test_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmberlineError, match=f"port {port} is in use; the test needs it"):
            process.require_free_port(port, "the test")


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(InvalidOption, match=f"the port is {port}; a number from 0 to 65535 is required"):
        process.require_free_port(port, "the test")


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid", ""])
def test_an_address_of_another_machine_is_told_apart_from_a_port_in_use(host):
    with pytest.raises(InvalidOption, match=f"the address is '{host}:8080'; one that can be listened on here"):
        process.require_free_port(8080, "the test", host)


def test_free_port_can_be_bound():
    process.require_free_port(process.free_port(), "the test")


def test_wait_until_names_what_did_not_happen():
    with pytest.raises(StageFailed, match=r"the moon: did not happen within 0.1 s"):
        process.wait_until(lambda: None, 0.1, "the moon")


def count_descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def handles_sigterm(pid):
    return signal_mask(pid, "SigCgt") >> (signal.SIGTERM - 1) & 1


def ignores_sigterm(pid):
    return signal_mask(pid, "SigIgn") >> (signal.SIGTERM - 1) & 1


def signal_mask(pid, name):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1], 16)


def test_a_programs_peak_of_memory_is_its_own_and_not_its_parents():
    program = "from emberline import process; print(process.peak_bytes())"
    held = bytearray(b"x") * 400_000_000  # written, so that it is resident
    peak = int(subprocess.check_output([sys.executable, "-c", program]))
    assert process.peak_bytes() > len(held) > peak > 5_000_000
