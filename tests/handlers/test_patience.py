"""What would take longer than the server waits is given up before, and the batch's other requests are answered."""

import json

import ember_patience
import pytest

GOOD = b'{"x": [1, 2, 3, 4]}'
PATIENCE_S = 4.0


class Hands:
    """A clock's, moved by the test."""

    def __init__(self):
        self.at_s = 100.0

    def monotonic(self):
        return self.at_s


@pytest.fixture
def handler(tensor_worker):
    return tensor_worker.service._entry_point.__self__


@pytest.fixture
def hands(monkeypatch):
    moved = Hands()
    monkeypatch.setattr(ember_patience, "time", moved)
    monkeypatch.setenv(ember_patience.VARIABLE, str(PATIENCE_S))
    yield moved
    monkeypatch.undo()
    ember_patience.clock.begin()


@pytest.fixture
def slow_rows(hands, handler, monkeypatch):
    """Each row takes a tenth of a second to be prepared."""
    prepare = handler.preprocessing

    class Slow:
        def __getattr__(self, name):
            return getattr(prepare, name)

        def together(self, _instances):
            return None

        def __call__(self, instance):
            hands.at_s += 0.1
            return prepare(instance)

    monkeypatch.setattr(handler, "preprocessing", Slow())


@pytest.fixture
def slow_model(hands, handler, monkeypatch):
    """Each call of the package takes a second."""
    program = handler.model._program

    def slow(batch):
        hands.at_s += 1.0
        return program(batch)

    monkeypatch.setattr(handler.model, "_program", slow)


def rows(count):
    return json.dumps({"instances": [json.loads(GOOD)] * count}).encode()


def tensors(count):
    tensor = {"name": "x", "shape": [count, 4], "datatype": "FP32", "data": [1, 2, 3, 4] * count}
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.usefixtures("slow_rows")
def test_a_request_of_too_much_preparation_is_refused_and_the_ones_before_it_are_answered(tensor_worker):
    before, heavy, form = tensor_worker.ask(GOOD, rows(50), GOOD)
    assert before.status == 200
    assert (heavy.status, heavy.json["field"]) == (400, "instances")
    assert "11 of 50 rows were prepared in 1 s" in heavy.json["error"]
    assert form.status == 503


@pytest.mark.usefixtures("slow_rows")
def test_what_there_is_no_time_for_is_told_to_come_again(tensor_worker):
    _heavy, after = tensor_worker.ask(rows(50), GOOD)
    assert after.status == 503
    headers = tensor_worker.service.context.request_processor[1].get_response_headers()
    assert headers["Retry-After"] == "1"
    assert tensor_worker.ask(GOOD)[0].status == 200


@pytest.mark.usefixtures("slow_model")
@pytest.mark.parametrize(("body", "field"), [(rows(500), "instances"), (tensors(500), "inputs")])
def test_rows_that_the_model_needs_too_long_for_are_refused_and_their_neighbours_answered(tensor_worker, body, field):
    heavy, small = tensor_worker.ask(body, GOOD)
    assert small.status == 200
    assert (heavy.status, heavy.json["field"]) == (400, field)
    assert heavy.json["error"].startswith(f"{field}: 500 rows take longer than this server waits")


@pytest.mark.usefixtures("slow_model")
def test_of_two_heavy_requests_the_one_that_came_late_is_not_blamed(tensor_worker):
    first, second = tensor_worker.ask(rows(128), rows(192))
    assert (first.status, second.status) == (200, 503)


@pytest.mark.usefixtures("slow_rows", "slow_model")
def test_without_a_server_that_waits_nothing_is_given_up(tensor_worker, monkeypatch):
    monkeypatch.delenv(ember_patience.VARIABLE)
    assert [one.status for one in tensor_worker.ask(rows(300), GOOD)] == [200, 200]
