"""Bodies of disagreements are kept for labelling where asked for, and nothing else of anybody."""

import base64

import orjson

from emberline.process import wait_until


def kept(router) -> list[dict]:
    return [orjson.loads(path.read_bytes()) for path in (router.folder / "data/samples").glob("*/*.json")]


def taps(router) -> list:
    return list((router.folder / "data/spool/taps").glob("*"))


def test_bodies_of_disagreements_alone_are_kept_and_go_when_they_are_old(start_router, write_experiment):
    router = start_router("--samples", "4s", weight=None)
    router.await_config(write_experiment(router.experiments, 0, shadow=1.0, noise=1.0))
    answers = router.ask([(f"person-{n}", {"n": n}) for n in range(1, 101)])
    wait_until(lambda: len(kept(router)) == 2, 15, "two planted disagreements")
    for sample in kept(router):
        number = orjson.loads(base64.b64decode(sample["body_base64"]))["n"]
        assert number in (50, 100)
        assert sample["request_id"] == answers[number - 1].headers["x-request-id"]
        live, copy = sample["answers"]
        assert (live["version"], copy["version"]) == ("1.0", "1.1")
        assert live["label"] != copy["label"]
        assert "person-" not in str(sample)
    assert (router.folder / "data/samples").stat().st_mode & 0o777 == 0o700
    wait_until(lambda: not taps(router), 15, "agreements are deleted")
    wait_until(lambda: not kept(router), 15, "samples are forgotten")


def test_without_asking_no_body_is_kept(start_router, write_experiment):
    router = start_router(weight=None)
    router.await_config(write_experiment(router.experiments, 0, shadow=1.0))
    router.ask([(f"person-{n}", {"n": n}) for n in range(1, 101)])
    router.await_rows(200)
    assert not kept(router)
    assert not taps(router)
