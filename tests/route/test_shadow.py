"""A mirrored share of live requests is answered by the other version, and the two answers meet by request id."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from emberline.process import wait_until

SHADOWED = 400


@pytest.fixture(scope="module")
def router(start_router):
    return start_router(weight=0, shadow=1.0)


def test_every_pair_meets_and_planted_disagreements_are_found(router, model_server):
    before = len(model_server.asked)
    answers = router.ask([(f"unit-{n}", {"n": n}) for n in range(1, SHADOWED + 1)])
    assert {answer.headers["x-variant"] for answer in answers} == {"fp32"}, "a shadow's answer reaches nobody"

    columns = "request_id, shadow, variant, version, label, score, unit, config_version, status"
    rows = router.await_rows(2 * SHADOWED, columns=columns)
    live = {row[0]: row for row in rows if not row[1]}
    shadow = {row[0]: row for row in rows if row[1]}
    assert len(rows) == 2 * SHADOWED
    assert live.keys() == shadow.keys() == {answer.headers["x-request-id"] for answer in answers}
    assert {row[2:4] for row in live.values()} == {("fp32", "1.0")}
    assert {row[2:4] for row in shadow.values()} == {("int8", "1.1")}
    assert {row[5] for row in rows} == {0.875}
    assert all(live[key][6:8] == shadow[key][6:8] for key in live), "unit and configuration of a pair are one"
    assert sum(live[key][4] != shadow[key][4] for key in live) == SHADOWED // 50
    asked = model_server.asked[before:]
    assert asked.count("/predictions/digits/1.0") == asked.count("/predictions/digits/1.1") == SHADOWED


def test_the_other_protocol_is_mirrored_too(router, model_server):
    before = len(model_server.asked)
    assert router.post("/v2/models/digits/infer", x_unit_id="u").json()["path"] == "/predictions/digits/1.0"
    wait_until(lambda: "/predictions/digits/1.1" in model_server.asked[before:], 5, "the mirrored request arrives")


def test_part_of_the_requests_can_be_mirrored(router, write_experiment, model_server):
    router.await_config(write_experiment(router.experiments, 0, shadow=0.25, revision=5))
    before = len(model_server.asked)
    router.ask([(f"unit-{n}", {"n": n}) for n in range(800)])
    mirrored = model_server.asked[before:].count("/predictions/digits/1.1")
    assert 130 < mirrored < 270


def test_the_control_is_asked_again_to_know_its_own_noise(start_router, write_experiment, model_server):
    noisy = start_router(weight=None)
    experiment = write_experiment(noisy.experiments, 0, shadow=1.0, noise=1.0)
    noisy.await_config(experiment)
    before = len(model_server.asked)
    answers = noisy.ask([(f"unit-{n}", {"n": n}) for n in range(1, 101)])
    wanted = {answer.headers["x-request-id"] for answer in answers}
    wait_until(
        lambda: sum(row[0] in wanted for row in noisy.rows(columns="request_id")) == 300, 15, "live, copy and noise"
    )
    rows = [row for row in noisy.rows(columns="request_id, shadow, variant, label") if row[0] in wanted]
    counts = {key: sum(row[1:3] == key for row in rows) for key in {row[1:3] for row in rows}}
    assert counts == {(False, "fp32"): 100, (True, "int8"): 100, (True, "fp32"): 100}
    # the request that saw the configuration in force has copies as well, which may come late
    assert model_server.asked[before:].count("/predictions/digits/1.0") >= 200
    labels = {key: {row[0]: row[3] for row in rows if row[1:3] == key} for key in counts}
    assert labels[True, "fp32"] == labels[False, "fp32"]


def test_shadows_are_shed_first_and_live_requests_go_on(start_router, write_experiment, model_server):
    """A variant may have 128 requests in flight, and a quarter of that waiting; copies have a quarter of both."""
    busy = start_router("--max-requests", "128", weight=None)
    busy.await_config(write_experiment(busy.experiments, 0, shadow=1.0))
    before = len(model_server.asked)
    with ThreadPoolExecutor(4) as waves:
        answered = []
        for wave in range(4):
            asked = [(f"u{wave}-{n}", {"slow_s": 2, "n": n}) for n in range(30)]
            answered.append(waves.submit(busy.ask, asked, 30))
            started = 30 * (wave + 1)
            seen = lambda: model_server.asked[before:].count("/predictions/digits/1.0")  # noqa: E731
            wait_until(lambda started=started, seen=seen: seen() >= started, 10, "the wave is under way")
    assert {answer.status for wave in answered for answer in wave.result()} == {200}
    copies = model_server.asked[before:].count("/predictions/digits/1.1")
    assert 32 <= copies < 120, "the others were dropped"
