"""What `emberline serve` refuses to start with, and what it says then. Nothing is left running each time."""

import shutil
import socket

import pytest

from emberline import signing
from emberline.process import free_port

TIMEOUT_S = 150


def refused(server):
    """The output of a server that ended by itself with an error."""
    assert server.child.wait(TIMEOUT_S) == 1
    assert not (server.folder / "state" / "serve.json").exists()
    assert 'Traceback (most recent call last):\n  File "' not in server.output.partition("the worker's last words")[0]
    return server.output


def test_empty_store_is_told_with_a_hint(start, tmp_path):
    output = refused(start("--store", tmp_path / "store"))
    assert f"{tmp_path / 'store'}: an archive (*.mar) is not there" in output
    assert "hint: " in output


def test_unsigned_archive_is_refused(start, tmp_path, make_archive):
    archive = make_archive(tmp_path / "archives", "1.0")
    assert "is not signed" in refused(start(archive))


def test_altered_archive_is_refused(start, tmp_path, archives):
    altered = tmp_path / archives[0].name
    altered.write_bytes(archives[1].read_bytes())
    shutil.copy(signing.signature_of(archives[0]), signing.signature_of(altered))
    assert "was altered after it was signed" in refused(start(altered))


def test_archive_of_another_signer_is_refused(start, tmp_path, archives):
    other = signing.create_keys(tmp_path / "other-keys")
    assert "was signed with key" in refused(start(archives[0], keys=other))


def test_port_in_use_is_told_before_anything_starts(start, archives):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        output = refused(start("--port", str(port), *archives, ports=False))
    assert f"port {port} is in use; TorchServe's inference API needs it" in output


def test_an_address_that_is_not_this_machines_is_told_before_anything_starts(start, archives):
    server = start("--host", "no.such.invalid", *archives)
    assert server.child.wait(TIMEOUT_S) == 2
    output = server.output
    assert "Traceback" not in output
    assert "the address is 'no.such.invalid:0'; one that can be listened on here" in output


def test_two_equal_ports_are_told_before_anything_starts(start, archives):
    port = str(free_port())
    output = refused(start("--port", port, "--health-port", port, *archives, ports=False))
    assert f"--health-port: port {port} is also --port's; each needs its own" in output


def test_one_version_in_two_archives_is_refused(start, tmp_path, archives, keys, make_archive):
    twin = make_archive(tmp_path, "1.0", keys=keys)
    assert "holds reverse 1.0, as" in refused(start(archives[0], twin))


def test_worker_that_cannot_load_shows_its_own_traceback(start, tmp_path, keys, make_archive):
    output = refused(start(make_archive(tmp_path, "2.0", broken=True, keys=keys)))
    # TorchServe refuses the version, or takes it and loses its worker at once: then the probe finds out
    assert "reverse 2.0" in output
    assert "RuntimeError: layer4.weight is missing" in output
    assert "Unknown exception" not in output


def test_wrong_probe_answer_shows_got_and_expected(start, tmp_path, keys, make_archive):
    output = refused(start(make_archive(tmp_path, "2.1", bias=1.0, believed=0.0, keys=keys)))
    assert "got [4, 3, 2], expected [3, 2, 1]: the largest difference 1 is over 1e-05" in output


@pytest.mark.long
def test_unsigned_archive_is_served_with_a_warning_when_allowed(start, tmp_path, make_archive):
    server = start("--allow-unsigned", make_archive(tmp_path / "archives", "1.0")).ready()
    assert "warning: " in server.output
    assert "is not signed" in server.output
    assert server.ask("1.0").json()["outputs"] == [3.0, 2.0, 1.0]
