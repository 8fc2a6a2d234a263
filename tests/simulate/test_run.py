"""A simulation against a local server that answers what each test tells it to."""

import asyncio
import http.server
import json
import threading

import numpy as np
import pytest

from emberline.cli.simulate import simulate
from emberline.errors import InvalidOption, StageFailed
from emberline.process import free_port
from emberline.simulate.run import Simulation
from emberline.simulate.traffic import Population, schedule

POPULATION = Population(seed=3, rate=100, num_units=5, duration_s=0.2, label_delay_s=0)
ROWS = [({"x": np.zeros(1)}, 0)] * 3


@pytest.fixture
def router():
    """Predicts "0" for everything; /v1/outcomes gets the statuses of `script`, the last one repeated."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            content = self.rfile.read(int(self.headers["content-length"]))
            status, answer = server.prediction, b'{"label": "0"}'
            if self.path == "/v1/outcomes":
                status, answer = server.script.pop(0) if len(server.script) > 1 else server.script[0], b"try again"
                server.taken += json.loads(content)["outcomes"] if status == 202 else []
                server.tries += 1
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.send_header("retry-after", "0")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.script, server.taken, server.tries, server.prediction = [202], [], 0, 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("emberline.simulate.run._OUTCOMES_PAUSE_S", 0.01)


def run(port: int) -> Simulation:
    simulation = Simulation(f"http://127.0.0.1:{port}", "digits", ROWS, ("0",), 0.0)
    try:
        asyncio.run(simulation.run(schedule(POPULATION, len(ROWS)), asyncio.Event(), lambda _: None))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return simulation


@pytest.mark.parametrize("status", [429, 503, 504])
def test_outcomes_are_sent_again_where_the_router_asks_for_it(router, status):
    router.script = [status, status, 202]
    tally = run(router.server_port).tally
    assert tally.outcomes == tally.statuses[200] == len(router.taken)
    assert tally.outcomes_repeated == 2


def test_outcomes_refused_time_and_again_end_the_simulation_with_the_last_answer(router):
    router.script = [503]
    with pytest.raises(StageFailed, match=r"outcomes were not taken in 6 tries; the last one: 503: try again"):
        run(router.server_port)
    assert router.tries == 6


def test_outcomes_that_are_wrong_are_not_sent_again(router):
    router.script = [400]
    with pytest.raises(StageFailed, match="outcomes were answered with 400"):
        run(router.server_port)
    assert router.tries == 1


def test_a_simulation_that_nobody_answers_fails_however_short_it_was():
    with pytest.raises(StageFailed, match=r"none of \d+ requests was answered with 200: \d+ x no answer"):
        run(free_port())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"duration": "0s"}, "--duration"),
        ({"rate": 0.0}, "--rate"),
        ({"url": "nonsense"}, "--url"),
        ({"url": "http://"}, "--url"),
    ],
)
def test_what_cannot_be_simulated_names_the_option_with_a_hint(options, key):
    with pytest.raises(InvalidOption) as caught:
        simulate(**options)
    assert caught.value.key == key
    assert caught.value.hint


def test_a_simulation_of_refusals_alone_tells_their_status(router):
    router.prediction = 404
    with pytest.raises(StageFailed, match=r"none of \d+ requests was answered with 200: \d+ x 404"):
        run(router.server_port)
