"""The client against a local server that answers what each test tells it to."""

import http.server
import json
import subprocess
import sys
import threading
import time
from email.utils import formatdate

import pytest

from emberline import process
from emberline.client import Client, NoAnswer, Outcome, RequestRefused, Tensor, UnusableAnswer, read_headers
from emberline.errors import InvalidOption

PNG = b"\x89PNG\r\n\x1a\n...."


@pytest.fixture
def router():
    """A server with scripted answers: (status, headers, body), the last one repeated; `seen` has what it got."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            content = self.rfile.read(int(self.headers["content-length"]))
            self.server.seen.append((time.monotonic(), self.path, dict(self.headers), content))
            script = self.server.script
            status, headers, body = script.pop(0) if len(script) > 1 else script[0]
            if body is None:
                self.server.release.wait(10)
                body = b"{}"
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.script, server.release = [], [(200, {}, {"label": "3"})], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_prediction_carries_body_variant_and_request_id(router):
    headers = {"x-variant": "int8", "x-model-version": "1.1", "x-config-version": "4", "x-request-id": "r-1"}
    router.script = [(200, headers, {"label": "3", "score": 0.9})]
    with Client(router.url) as client:
        answer = client.predict("digits", {"pixels": [[1.0]]}, unit="u-1")
    assert answer.body == {"label": "3", "score": 0.9}
    assert (answer.variant, answer.version, answer.config_version, answer.request_id) == ("int8", "1.1", "4", "r-1")
    _, path, sent, content = router.seen[0]
    assert (path, sent["x-unit-id"], json.loads(content)) == ("/predictions/digits", "u-1", {"pixels": [[1.0]]})


def test_several_instances_are_sent_as_instances(router):
    with Client(router.url) as client:
        client.predict("digits", [{"pixels": 1}, {"pixels": 2}])
    assert json.loads(router.seen[0][3]) == {"instances": [{"pixels": 1}, {"pixels": 2}]}


def test_image_is_sent_as_it_is(router):
    with Client(router.url) as client:
        client.predict("photos", PNG)
    assert router.seen[0][3] == PNG


def test_headers_go_with_every_call_and_the_unit_in_its_own(router):
    headers = {"x-api-key": "abc", "content-type": "image/png"}
    router.script = [(200, {}, {"model_name": "m", "model_version": "1", "outputs": [], "accepted": 1})]
    with Client(router.url, headers=headers, unit_header="x-customer") as client:
        client.predict("photos", PNG, unit="u-1")
        client.infer("photos", [], unit="u-2")
        client.post_outcomes([])
    sent = [one[2] for one in router.seen]
    assert [one["x-api-key"] for one in sent] == ["abc"] * 3
    assert [one.get("x-customer") for one in sent] == ["u-1", "u-2", None]
    assert sent[0]["content-type"] == "image/png"
    assert "x-unit-id" not in sent[0]


def test_units_and_headers_may_hold_any_text(router):
    with Client(router.url, headers={"x-name": "Zoë"}) as client:
        client.predict("digits", {}, unit="Zoë")
        client.predict("photos", PNG, unit="李")
    sent = [(one[2]["x-unit-id"], one[2]["x-name"]) for one in router.seen]  # which http.server reads as Latin-1
    assert [tuple(text.encode("latin-1").decode() for text in one) for one in sent] == [("Zoë", "Zoë"), ("李", "Zoë")]


def test_open_inference_call_returns_tensors_by_name(router):
    outputs = [{"name": "scores", "shape": [1, 2], "datatype": "FP32", "data": [0.25, 0.75]}]
    router.script = [(200, {}, {"model_name": "digits", "model_version": "1.0", "id": "a", "outputs": outputs})]
    with Client(router.url) as client:
        inference = client.infer("digits", [Tensor("pixels", (1, 2), "FP32", [0.0, 1.0])], id="a")
    assert inference.outputs["scores"] == Tensor("scores", (1, 2), "FP32", [0.25, 0.75])
    assert (inference.model_version, inference.id) == ("1.0", "a")
    assert router.seen[0][1] == "/v2/models/digits/infer"
    assert json.loads(router.seen[0][3])["inputs"][0]["shape"] == [1, 2]


def test_outcomes_are_sent_without_absent_fields(router):
    router.script = [(202, {}, {"accepted": 1})]
    with Client(router.url) as client:
        assert client.post_outcomes([Outcome("e-1", "u-1", "correct", 1.0)]) == 1
    sent = json.loads(router.seen[0][3])
    assert sent == {"outcomes": [{"event_id": "e-1", "unit": "u-1", "metric": "correct", "value": 1.0}]}


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_asked_again_after_the_time_it_names(router, status):
    router.script = [(status, {"retry-after": "1"}, {"error": "full"}), (200, {}, {"label": "3"})]
    with Client(router.url) as client:
        assert client.predict("digits", {}).body == {"label": "3"}
    assert len(router.seen) == 2
    assert router.seen[1][0] - router.seen[0][0] >= 1.0


def test_retry_after_may_be_a_date(router):
    date = formatdate(time.time() + 2, usegmt=True)
    router.script = [(503, {"retry-after": date}, {"error": "full"}), (200, {}, {"label": "3"})]
    with Client(router.url) as client:
        client.predict("digits", {})
    assert 0.5 <= router.seen[1][0] - router.seen[0][0] <= 3


def test_retries_end_with_the_servers_own_words(router):
    router.script = [(503, {}, {"error": "the queue is full"})]
    with Client(router.url, max_tries=3) as client, pytest.raises(RequestRefused, match="the queue is full") as refusal:
        client.predict("digits", {})
    assert refusal.value.status == 503
    assert len(router.seen) == 3


def test_wait_longer_than_allowed_is_not_waited(router):
    router.script = [(503, {"retry-after": "3600"}, {"error": "closed"})]
    with Client(router.url) as client, pytest.raises(RequestRefused, match="closed"):
        client.predict("digits", {})
    assert len(router.seen) == 1


def test_wrong_request_is_not_repeated_and_names_its_field(router):
    router.script = [(400, {}, {"error": "17 is over 16", "field": "pixels"})]
    with Client(router.url) as client, pytest.raises(RequestRefused, match="pixels: 17 is over 16") as refusal:
        client.predict("digits", {})
    assert (refusal.value.status, refusal.value.field, len(router.seen)) == (400, "pixels", 1)


@pytest.mark.parametrize("status", [500, 502, 504, 507])
def test_failure_that_may_have_done_something_is_not_repeated(router, status):
    router.script = [(status, {}, b"boom")]
    with Client(router.url) as client, pytest.raises(RequestRefused, match="boom"):
        client.predict("digits", {})
    assert len(router.seen) == 1


def test_silent_server_is_given_up_on_after_the_timeout(router):
    router.script = [(200, {}, None)]
    with Client(router.url, timeout_s=0.3) as client, pytest.raises(NoAnswer, match="timed out"):
        client.predict("digits", {})
    assert len(router.seen) == 1


def test_nobody_listening_is_told_after_the_tries():
    url = f"http://127.0.0.1:{process.free_port()}"
    with Client(url, max_tries=2) as client, pytest.raises(NoAnswer, match="gave no answer"):
        client.predict("digits", {})


def test_answer_that_is_no_json_is_told(router):
    router.script = [(200, {}, b"<html>")]
    with Client(router.url) as client, pytest.raises(UnusableAnswer, match="no JSON: '<html>'"):
        client.predict("digits", {})


@pytest.mark.parametrize("body", [[{"person": [1, 2, 3, 4], "score": 0.9}], "3", 7, None])
def test_any_json_is_an_answer(router, tmp_path, body):
    router.script = [(200, {"x-variant": "int8"}, json.dumps(body).encode())]
    with Client(router.url) as client:
        answer = client.predict("digits", {})
    assert (answer.body, answer.variant) == (body, "int8")
    (tmp_path / "x.json").write_text("{}")
    assert json.loads(run_predict(tmp_path / "x.json", "--url", router.url).stdout) == body


@pytest.mark.parametrize(
    "body", [{"label": "3"}, [1], 7, {"outputs": [1]}, {"outputs": [{"name": "a"}]}, {"outputs": 3}]
)
def test_what_is_no_answer_of_the_call_is_told(router, body):
    router.script = [(200, {}, body)]
    with Client(router.url) as client:
        with pytest.raises(UnusableAnswer, match="none of the Open Inference Protocol"):
            client.infer("digits", [])
        with pytest.raises(UnusableAnswer, match="no number of outcomes"):
            client.post_outcomes([])


def run_predict(*arguments, stdin=b""):
    command = [sys.executable, "-m", "emberline.cli", "predict", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def test_predict_verb_reads_a_file_and_prints_json(router, tmp_path):
    (tmp_path / "x.json").write_text('{"pixels": [[1]]}')
    done = run_predict(tmp_path / "x.json", "--url", router.url, "--unit", "u-1")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"label": "3"})
    assert router.seen[0][1] == "/predictions/digits"


def test_predict_verb_sends_headers_and_the_unit_in_the_one_that_is_named(router, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    options = ["--header", "x-api-key: a:b", "--header", "Authorization: Bearer c", "--unit-header", "x-customer"]
    done = run_predict(tmp_path / "x.json", "--url", router.url, "--unit", "u-1", *options)
    assert done.returncode == 0, done.stderr
    sent = router.seen[0][2]
    assert (sent["x-api-key"], sent["Authorization"], sent["x-customer"]) == ("a:b", "Bearer c", "u-1")


@pytest.mark.parametrize(
    ("given", "required"),
    [
        (["x-api-key"], "a name, a colon and a value"),
        (["x api: b"], "a name, a colon and a value"),
        (["x-api-key: a\r\nx-b: c"], "a name, a colon and a value"),
        (["X-Unit-Id: u"], "a header that the verb does not send itself"),
        (["x-a: b", "X-A: c"], "each header once"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused(given, required):
    with pytest.raises(InvalidOption, match=f"{required} is required"):
        read_headers("predict", given, but=("x-unit-id",))


def test_predict_verb_reads_standard_input(router):
    done = run_predict("-", "--url", router.url, "--model", "photos", stdin=PNG)
    assert done.returncode == 0, done.stderr
    assert router.seen[0][1] == "/predictions/photos"
    assert router.seen[0][3] == PNG


def test_predict_verb_says_what_its_input_should_be(router, tmp_path):
    (tmp_path / "x.json").write_text("{")
    done = run_predict(tmp_path / "x.json", "--url", router.url)
    assert done.returncode == 1
    assert b"JSON, a JPEG or a PNG is required" in done.stderr
    assert run_predict(tmp_path / "nowhere.json", "--url", router.url).returncode == 1
    assert router.seen == []


def test_predict_verb_makes_a_unit_up_and_says_which(router, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    done = run_predict(tmp_path / "x.json", "--url", router.url)
    unit = router.seen[0][2]["x-unit-id"]
    assert unit.startswith("predict-")
    assert f"--unit {unit}".encode() in done.stderr


def test_field_that_the_error_names_itself_is_told_once(router):
    router.script = [(400, {}, {"error": "pixels: shape is [1]; [8, 8] is required", "field": "pixels"})]
    with Client(router.url) as client, pytest.raises(RequestRefused) as refused:
        client.predict("digits", {"pixels": [1]}, unit="u-1")
    assert "answered 400: pixels: shape is" in str(refused.value)
