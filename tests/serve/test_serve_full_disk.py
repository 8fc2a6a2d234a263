"""A disk that is really full: serving goes on, what is lost is told, and what could not be done is done later."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from emberline import process, signing

pytestmark = pytest.mark.long


@pytest.fixture
def small_disk(mount_disk):
    """A file system of 8 MiB, of a short path: sockets are made in it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    with mount_disk(folder, 8):
        yield folder
    folder.rmdir()


@pytest.fixture
def store(archives, tmp_path):
    """Has version 1.0; others can be put into it."""
    folder = tmp_path / "store"
    folder.mkdir()
    put(archives[0], folder)
    return folder


def put(archive, store):
    shutil.copy(archive, store)
    shutil.copy(signing.signature_of(archive), store)


def put_unsigned(store, numbers):
    """Each is told in the log."""
    for number in numbers:
        (store / f"unsigned-{number}.mar").write_bytes(b"nothing")


def test_a_log_that_cannot_be_written_ends_nothing_and_goes_on_when_it_can(
    start, store, small_disk, fill_disk, tmp_path
):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "state").symlink_to(small_disk)
    server = start("--store", store).ready()
    filler = fill_disk(small_disk)
    put_unsigned(store, range(30))
    told = "serve.jsonl: cannot be written: No space left on device; events are lost until it can"
    process.wait_until(lambda: told in server.output, 60, "its being told")
    process.wait_until(lambda: server.output.count("is not signed") == 30, 60, "all archives being looked at")
    assert server.output.count(told) == 1
    assert server.ask("1.0").json()["outputs"] == [3.0, 2.0, 1.0]
    filler.unlink()
    log = small_disk / "serve.jsonl"
    before = log.stat().st_size
    put_unsigned(store, [30])
    process.wait_until(lambda: log.stat().st_size > before, 60, "an event")
    assert all(json.loads(line)["event"] for line in log.read_text().splitlines())
    assert server.stop() == 0


def test_an_archive_that_there_is_no_room_for_is_taken_in_when_there_is(start, archives, store, small_disk, fill_disk):
    server = start("--store", store, temporary=small_disk).ready()
    filler = fill_disk(small_disk)
    put(archives[1], store)
    process.wait_until(lambda: "not taken in, to be tried again in 5 s" in server.output, 60, "its being told")
    assert server.ask("1.0").json()["outputs"] == [3.0, 2.0, 1.0]
    filler.unlink()
    process.wait_until(lambda: "1.1" in server.state["models"]["reverse"], 60, "the version")
    assert server.stop() == 0
