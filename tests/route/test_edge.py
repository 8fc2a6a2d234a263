"""What the router refuses, retries and promises before and after a model was asked."""

import asyncio
import json
import socket

import pytest

import emberline


@pytest.fixture(scope="module")
def router(start_router):
    return start_router("--timeout-s", "1", "--max-body-bytes", "65536", "--max-requests", "4", weight=5000)


def order(**what) -> bytes:
    return json.dumps(what).encode()


def test_an_answer_names_variant_version_configuration_and_request(router):
    answer = router.post("/predictions/digits", order(n=3), x_unit_id="u1")
    assert answer.status_code == 200
    assert answer.json()["label"] == "3"
    assert (answer.headers["x-variant"], answer.headers["x-model-version"]) in {("int8", "1.1"), ("fp32", "1.0")}
    assert answer.headers["x-config-version"].startswith("digits-int8-0-")
    assert len(answer.headers["x-request-id"]) == 36
    assert not [name for name in answer.headers if name.startswith("x-e")], "Envoy's and our inner headers stay inside"


def test_a_model_without_an_experiment_needs_no_unit_and_gets_its_default_version(router):
    for path in ("/predictions/plain", "/v2/models/plain/infer"):
        answer = router.post(path)
        assert answer.status_code == 200
        assert answer.json()["path"] == "/predictions/plain/2"
        assert answer.headers["x-variant"] == "default"
        assert answer.headers["x-model-version"] == "2"


@pytest.mark.parametrize(
    ("unit", "what"),
    [
        (None, "is required"),
        (b"", "1 to 256 bytes"),
        (b"x" * 257, "1 to 256 bytes"),
        ("é".encode() * 129, "1 to 256 bytes"),
        (b"\xff\xfe", "UTF-8"),
        (b"\xed\xa0\x80", "UTF-8"),
    ],
)
@pytest.mark.parametrize("path", ["/predictions/digits", "/v2/models/digits/infer"])
def test_an_unusable_unit_is_refused_with_the_header_named(router, path, unit, what):
    answer = router.post(path) if unit is None else router.post(path, x_unit_id=unit)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["field"] == "x-unit-id"
    assert what in body["error"]
    assert body["request_id"] == answer.headers["x-request-id"]


def test_256_bytes_are_a_unit(router):
    assert router.post("/predictions/digits", x_unit_id="é".encode() * 128).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/dashboard",
            "/models",
            "/models/digits",
            "/metrics",
            "/ping",
            "/stats",
            "/predictions",
            "/predictions/unknown",
        ),
        *(
            "/predictions/digits/1.0",
            "/predictions/digits/../../models",
            "/predictions//../models",
            "/v2/models/unknown",
            "/v2/models/digits/versions/1.0",
        ),
        "/explanations/digits",
    ],
)
def test_nothing_else_is_reachable(router, model_server, path):
    before = len(model_server.asked)
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = router.client.build_request(method, router.url + path)
        answer.url = answer.url.copy_with(raw_path=path.encode())  # dots must reach the router as they are
        reply = router.client.send(answer)
        assert reply.status_code == 404
        assert reply.json()["error"] == "nothing is served at this path"
    assert len(model_server.asked) == before


def test_escaped_slashes_do_not_lead_elsewhere(router, model_server):
    before = len(model_server.asked)
    for path in ("/predictions/digits%2F..%2F..%2Fmodels", "/predictions/..%2fmodels", "/predictions/..%5Cmodels"):
        reply = router.post(path, x_unit_id="u1")
        assert reply.status_code == 404
        assert reply.json()["error"] == "nothing is served at this path"
        assert reply.json()["request_id"] == reply.headers["x-request-id"]
    assert len(model_server.asked) == before


def test_a_request_that_is_no_valid_http_is_told_so(router):
    for wrong in (b"GET /livez HTTP/1.1\r\n\r\n", b"GET /livez#there HTTP/1.1\r\nhost: r\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", router.port), timeout=10) as connection:
            connection.sendall(wrong)
            head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert "malformed" in json.loads(body)["error"]


def test_another_method_is_told_which_one_is_served(router):
    reply = router.client.get(router.url + "/predictions/digits")
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    assert "POST" in reply.json()["error"]
    assert reply.headers["x-config-version"].startswith("digits-int8-0-"), "what is in force can be asked for free"


def test_a_client_cannot_set_what_the_router_says_of_its_request(router):
    forged = {
        "x_ember_experiment": "other",
        "x_ember_config": "forged",
        "x_ember_version": "9.9",
        "x_request_id": "mine",
    }
    answer = router.post("/predictions/plain", **forged)
    assert answer.json()["path"] == "/predictions/plain/2"
    assert answer.headers["x-request-id"] != "mine"
    answer = router.post("/predictions/digits", x_unit_id="u1", x_envoy_upstream_rq_timeout_ms="1", **forged)
    assert answer.status_code == 200
    assert answer.json()["path"] in {"/predictions/digits/1.0", "/predictions/digits/1.1"}


def test_a_body_over_the_limit_is_413(router, model_server):
    before = len(model_server.asked)
    reply = router.post("/predictions/digits", b"x" * 65_537, x_unit_id="u1")
    assert reply.status_code == 413
    assert "larger" in reply.json()["error"]
    assert len(model_server.asked) == before


def test_a_body_over_the_limit_is_told_of_as_the_body_whatever_else_is_wrong(router):
    for headers in ({}, {"x_unit_id": "x" * 257}, {"x_unit_id": "u1"}):
        reply = router.post("/predictions/digits", b"x" * 65_537, **headers)
        assert (reply.status_code, reply.json()["field"]) == (413, "body")


def test_a_model_servers_own_413_gets_a_body(router):
    reply = router.post("/predictions/digits", order(status=413), x_unit_id="u1")
    assert reply.status_code == 413
    assert reply.headers["content-type"] == "application/json"
    assert "larger" in reply.json()["error"]
    assert reply.json()["request_id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ("application/x-www-form-urlencoded", "application/json"),
        ("Application/X-WWW-Form-Urlencoded; charset=utf-8", "application/json"),
        ("multipart/form-data; boundary=x", "multipart/form-data; boundary=x"),
        ("image/jpeg", "image/jpeg"),
        (None, None),
    ],
)
def test_what_curl_calls_a_form_unless_told_otherwise_is_asked_as_json(router, model_server, sent, got):
    headers = {} if sent is None else {"content_type": sent}
    for path in ("/predictions/digits", "/v2/models/digits/infer", "/predictions/plain", "/v2/models/plain/infer"):
        answer = router.post(path, order(n=3), x_unit_id="u1", **headers)
        assert answer.status_code == 200
        assert answer.json()["label"] == "3"
        assert model_server.content_types[-1] == got


def test_a_model_that_is_too_slow_is_504(router):
    reply = router.post("/predictions/digits", order(slow_s=3), x_unit_id="u1")
    assert reply.status_code == 504
    assert reply.json()["error"] == "the model did not answer in time"
    assert reply.headers["x-variant"] in {"int8", "fp32"}


@pytest.mark.parametrize("status", [500, 503, 507])
def test_a_busy_model_is_asked_again_and_the_variant_stays(router, model_server, status):
    for unit in range(6):
        key = f"{status}-{unit}"
        before = len(model_server.asked)
        answer = router.post("/predictions/digits", order(status=status, times=1, key=key, n=1), x_unit_id=f"u{unit}")
        assert answer.status_code == 200
        paths = model_server.asked[before:]
        assert len(paths) == 2
        assert set(paths) == {f"/predictions/digits/{answer.headers['x-model-version']}"}


@pytest.mark.parametrize("status", [503, 507])
def test_a_model_that_stays_busy_is_503_with_retry_after(router, status):
    reply = router.post("/predictions/digits", order(status=status, key=f"always-{status}"), x_unit_id="u1")
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["error"] == "the model has no free worker; try again"


def test_a_version_not_registered_yet_is_503_and_a_handlers_own_404_is_passed_on(router):
    unknown = router.post("/predictions/digits", order(status=404, key="unknown"), x_unit_id="u1")
    assert (unknown.status_code, unknown.headers["retry-after"]) == (503, "1")
    handlers = router.post("/predictions/digits", order(status=404, key="no row", answered=True), x_unit_id="u1")
    assert handlers.status_code == 404
    assert handlers.json()["label"] == "0", "the handler's own body"


def test_a_clients_own_error_is_passed_on_and_not_repeated(router, model_server):
    before = len(model_server.asked)
    reply = router.post("/predictions/digits", order(status=400, key="bad"), x_unit_id="u1")
    assert reply.status_code == 400
    assert reply.json()["label"] == "0", "the handler's own body"
    assert len(model_server.asked) == before + 1


def test_more_than_the_model_bears_at_once_is_503_with_retry_after(router):
    answers = router.ask([("same", {"slow_s": 0.5})] * 12, connections=12)
    refused = [answer for answer in answers if answer.status == 503]
    assert 1 <= len(refused) < len(answers)
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert json.loads(refused[0].body)["error"] == "too many requests are in flight; try again"


def test_a_dead_model_server_is_503_and_a_flood_429_with_retry_after(start_router, model_server):
    elsewhere = ("--upstream", "gone@1=127.0.0.1:9", "--default", "gone=1")
    page = ("--dashboard", f"127.0.0.1:{model_server.port}")
    dead = start_router(*elsewhere, *page, "--requests-per-s", "5", weight=None)
    assert dead.client.get(dead.url + "/dashboard/api/x?y=1").json()["path"] == "/dashboard/api/x?y=1"
    reply = dead.post("/predictions/gone")
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert reply.json()["error"] == "no server of this version answers; try again"
    assert dead.client.get(dead.url + "/readyz").status_code == 200, "the router itself is ready"
    unready = dead.client.get(dead.url + "/v2/models/gone/ready")
    assert (unready.status_code, unready.headers["retry-after"]) == (503, "1")
    assert unready.json() == {"name": "gone", "ready": False, "error": "no answer from 127.0.0.1:9"}
    statuses = [dead.post("/predictions/plain") for _ in range(12)]
    limited = [reply for reply in statuses if reply.status_code == 429]
    assert limited
    assert limited[0].headers["retry-after"] == "1"
    assert limited[0].json()["error"] == "too many requests; try again"


def test_readiness_is_told_in_both_protocols(router):
    get = router.client.get
    assert get(router.url + "/livez").json() == {"live": True}
    assert get(router.url + "/readyz").json() == {"ready": True}
    assert get(router.url + "/v2/health/live").json() == {"live": True}
    assert get(router.url + "/v2/health/ready").json() == {"ready": True}
    assert get(router.url + "/v2/models/digits/ready").json() == {"name": "digits", "ready": True}
    assert get(router.url + "/v2/models/nobody/ready").status_code == 404


def test_metadata_of_server_and_model_are_told_by_the_open_inference_protocol(router, model_server):
    get, before = router.client.get, len(router.rows())
    assert get(router.url + "/v2").json() == {"name": "emberline", "version": emberline.__version__, "extensions": []}
    asked = [get(f"{router.url}/v2/models/{model}").json()["path"] for model in ("digits", "plain")]
    assert asked == ["/predictions/digits/1.0", "/predictions/plain/2"]
    assert model_server.asked[-2:] == asked
    assert router.post("/v2/models/digits").status_code == 405
    assert len(router.rows()) == before  # nobody was given to a variant


def test_a_client_that_never_ends_its_request_holds_nothing_up(router):
    async def half_a_request() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(b"POST /predictions/digits HTTP/1.1\r\nhost: r\r\nx-unit-id: u\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()

    asyncio.run(half_a_request())
    assert router.post("/predictions/digits", x_unit_id="u1").status_code == 200
