"""Open-loop load: requests leave when they are due, and latency counts from then."""

import asyncio
import base64
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from emberline import process
from emberline.errors import StageFailed
from emberline.load.bodies import body_of, from_files, from_rows
from emberline.load.connection import Target
from emberline.load.drive import NO_ANSWER, arrivals, drive
from emberline.load.latency import latencies

STALL_S = 0.6
# answers as they travel; of those named close the server closes the connection
RAW = {
    b"close": b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 2\r\n\r\n{}",
    b"close-1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"keep-1.0": b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\n{}",
    b"length": b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}",
    b"status": b"HTTP/1.1 fine\r\ncontent-length: 2\r\n\r\n{}",
    b"head": b"HTTP/1.1 200 OK\r\nx: " + bytes(1 << 18),
}


class Server:
    """Answers with the status in the body; `stall` holds up all others for `STALL_S`, `slow` and `never` nobody."""

    def __init__(self):
        self.units, self.heads, self.loop, self._ready = [], [], asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self._ready.wait(10)

    def _run(self):
        self.loop.run_until_complete(self._serve())
        self.loop.run_forever()

    async def _serve(self):
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port, self._turn = server.sockets[0].getsockname()[1], asyncio.Lock()
        self._ready.set()

    async def _answer(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                self.heads.append(head)
                body = await reader.readexactly(int(head.split("content-length: ")[1].split("\r")[0]))
                self.units.append(head.split("x-unit-id: ")[1].split("\r")[0])
                if body in RAW:
                    writer.write(RAW[body])
                    await writer.drain()
                    if body.startswith(b"close"):
                        break
                    continue
                await asyncio.sleep({b"slow": 0.2, b"never": 60}.get(body, 0))
                async with self._turn:
                    await asyncio.sleep(STALL_S if body == b"stall" else 0)
                status = body.decode() if body.isdigit() else "200"
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.fixture
def server():
    running = Server()
    yield running
    running.stop()


def loaded(server, bodies, due, **settings):
    how = {"timeout_s": 5.0, "max_connections": 100, **settings}
    return drive(Target("127.0.0.1", server.port, "/predictions/x"), [body_of(one) for one in bodies], due, **how)


@pytest.mark.parametrize("connections", [1, 100])
def test_a_stall_shows_in_every_request_that_was_due_meanwhile(server, connections):
    bodies = [b"{}"] * 100
    bodies[20] = b"stall"
    found = latencies(loaded(server, bodies, np.arange(100) / 100, max_connections=connections))
    assert found.statuses == {200: 100}
    # requests are due every 10 ms, so some 50 of them wait for more than 100 ms of the stall
    assert 40 <= sum(one > 100 for one in found.corrected) <= 75
    if connections == 1:  # what a closed loop tells: one slow request
        assert sum(one > 100 for one in found.uncorrected) <= 5


def test_requests_leave_at_the_rate_asked_for_however_slow_the_answers(server):
    samples = loaded(server, [b"slow"], arrivals(200, 1.0, seed=1, even=True))
    assert len(samples) == 200
    assert np.percentile([one.sent - one.due for one in samples], 90) < 0.1
    assert len(set(server.units)) == 200  # each for a unit of its own


def test_arrivals_are_those_of_the_seed_and_keep_the_rate():
    times = arrivals(500, 20, seed=3)
    assert np.array_equal(times, arrivals(500, 20, seed=3))
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert np.diff(times).std() == pytest.approx(1 / 500, rel=0.1)  # as a Poisson process has it
    assert np.allclose(np.diff(arrivals(500, 1, seed=0, even=True)), 1 / 500)


def test_failures_are_counted_and_kept_out_of_the_percentiles(server):
    found = latencies(loaded(server, [b"200", b"503", b"200", b"never"], np.arange(8) / 50, timeout_s=2.0))
    assert found.statuses == {NO_ANSWER: 2, 200: 4, 503: 2}
    assert (len(found.corrected), found.num_failed) == (4, 4)


@pytest.mark.parametrize("body", [b"close", b"close-1.0", b"keep-1.0"])
def test_a_connection_that_the_server_closes_is_not_asked_again(server, body):
    samples = loaded(server, [body], np.arange(10) / 50, max_connections=1)
    assert [one.status for one in samples] == [200] * 10


@pytest.mark.parametrize("body", [b"length", b"status", b"head"])
def test_what_is_no_answer_of_http_is_counted_as_none(server, body):
    found = latencies(loaded(server, [b"200", body], np.arange(8) / 50))
    assert found.statuses == {NO_ANSWER: 4, 200: 4}


def test_the_verb_sends_headers_in_place_of_those_of_the_same_name(server, tmp_path):
    (tmp_path / "body.json").write_text("{}")
    command = [sys.executable, "-m", "emberline.cli", "load", "body.json", "--model", "x", "--rate", "10"]
    command += ["--seconds", "1", "--url", f"http://127.0.0.1:{server.port}"]
    command += ["--header", "Authorization: Bearer abc", "--header", "Host: models.example"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    lines = server.heads[0].split("\r\n")
    assert {"authorization: bearer abc", "host: models.example", "content-type: application/json"} <= set(lines)
    assert sum(line.startswith("host:") for line in lines) == 1
    twice = subprocess.run([*command, "--header", "Connection: close"], cwd=tmp_path, capture_output=True, check=False)
    assert twice.returncode == 2


def test_a_load_that_nobody_answers_is_refused():
    with pytest.raises(StageFailed, match="answered none of 5 requests"):
        drive(
            Target("127.0.0.1", process.free_port(), "/x"),
            [body_of(b"{}")],
            np.arange(5) / 50,
            timeout_s=1.0,
            max_connections=5,
        )


def test_images_are_known_by_what_they_begin_with(tmp_path):
    (tmp_path / "a.json").write_bytes(b"{}")
    (tmp_path / "b").write_bytes(b"\x89PNG...")
    assert [one.content_type for one in from_files([tmp_path])] == ["application/json", "image/png"]


def test_rows_with_images_beside_other_inputs_are_sent_as_json_has_them():
    rows = [({"image": b"\x89PNG...", "size": np.arange(2)}, 0), ({"image": b"\x89PNG..."}, 0)]
    both, alone = from_rows(rows)
    assert json.loads(both.content) == {"image": base64.b64encode(b"\x89PNG...").decode(), "size": [0, 1]}
    assert (both.content_type, alone.content_type, alone.content) == ("application/json", "image/png", b"\x89PNG...")


def test_the_verb_prints_both_latencies_and_draws_them(server, tmp_path):
    (tmp_path / "body.json").write_text(json.dumps({"x": 1}))
    command = [sys.executable, "-m", "emberline.cli", "load", "body.json", "--model", "x", "--rate", "50"]
    command += ["--seconds", "1", "--url", f"http://127.0.0.1:{server.port}", "--plot", "out/load.svg"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "ms from when it was due" in done.stdout
    assert "99.9" in done.stdout
    assert "<svg" in (tmp_path / "out/load.svg").read_text()
    (tmp_path / "body.json").write_text("500")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=100, check=False).returncode == 1
