"""A tuned artifact is a new revision, archived and signed anew, and served as it was found best."""

import asyncio
import math
import threading

import pytest
import yaml

from emberline import signing
from emberline.archivefile import read_archive
from emberline.artifact import read_artifact
from emberline.errors import StageFailed
from emberline.recipe import Archive, Tuned, load_recipe
from emberline.tune.drive import drive
from emberline.tune.grid import Observed, Trial, best
from emberline.tune.run import measured, none_fits, revise, trial_options, tune

SETTINGS = Archive(model="tiny", versions={"fp32": "1.0"})
FOUND = Tuned(workers=1, threads=1, batch_size=8, batch_delay_ms=0)


@pytest.fixture
def artifact(export_artifact, tmp_path):
    from emberline.models.mlp import mlp

    spec = {"inputs": [{"name": "x", "shape": [4]}]}
    return export_artifact(
        tmp_path / "runs/tiny/artifacts/fp32", mlp(4, 3, hidden=(8,)), spec, {"x": [1, 2, 3, 4]}, "abc"
    )


@pytest.fixture
def answering():
    """Answers every request with the status in its body, until the test ends."""
    loop, ready, address = asyncio.new_event_loop(), threading.Event(), []

    async def answer(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                status = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r")[0]))
                writer.write(b"HTTP/1.1 %s OK\r\ncontent-length: 2\r\n\r\n{}" % status)
        except asyncio.IncompleteReadError:
            writer.close()

    async def serve():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/predictions/tiny")
        ready.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(serve()), loop.run_forever()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield address[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def test_load_counts_answers_and_failures_apart(answering):
    good = drive(answering, b"200", connections=3, seconds=0.3)
    assert good.rps > 10
    assert good.failed == 0
    assert 0 < good.p50_ms <= good.p99_ms
    with pytest.raises(StageFailed, match="answered none"):
        drive(answering, b"503", connections=1, seconds=0.1)


def test_a_setting_that_answers_nothing_is_one_that_failed(answering):
    seen = measured(answering, b"503", connections=1, seconds=0.1)
    assert (seen.rps, seen.p99_ms) == (0.0, math.inf)
    assert seen.failed > 0
    assert best([Trial(FOUND, seen)], None) is None


@pytest.mark.parametrize(
    ("p99_ms", "seen", "told"),
    [
        (None, Observed(900, 1.0, 2.0, failed=3), "every setting failed requests with 8 connections"),
        (30.0, Observed(900, 1.0, 2.0, failed=3), "every setting failed requests with 8 connections"),
        (30.0, Observed(900, 1.0, 40.0), "no setting keeps p99 at 30 ms with 8 connections"),
    ],
)
def test_why_no_setting_was_chosen_is_told_with_the_nearest(p99_ms, seen, told):
    silent = Trial(FOUND, Observed(0.0, math.inf, math.inf, failed=9))
    error = none_fits([silent, Trial(FOUND, seen)], p99_ms, 8)
    assert error.fact.startswith(f"{told}; the nearest is 1 worker, 1 thread, batches of 8, delay 0 ms: 900 requests/s")


def test_a_trial_is_served_as_the_recipe_and_the_overrides_say_but_for_what_is_tried(tmp_path, root):
    recipe = tmp_path / "recipe.yaml"
    text = (root / "recipes/digits.yaml").read_text()
    serve = {"queue_size": 7, "workers": 9, "devices": [0, 1], "device_memory_share": 0.1}
    raw = yaml.safe_load(text) | {"serve": serve}
    recipe.write_text(yaml.safe_dump(raw))
    options = trial_options(recipe, ["serve.response_timeout_s=2", "serve.batch_size=3"], FOUND)
    assert options[:2] == ["--recipe", recipe]
    assert options[2::2] == ["--set"] * len(options[3::2])
    told = load_recipe(recipe, options[3::2]).serve
    assert (told.queue_size, told.response_timeout_s) == (7, 2)
    assert (told.workers, told.threads, told.batch_size, told.batch_delay_ms) == (1, 1, 8, 0)
    assert (told.tuned, told.devices) == (False, ()), "it is measured on the CPU"


def test_a_revision_keeps_the_files_and_names_the_one_before_it(artifact):
    before, _ = read_artifact(artifact)
    revise(artifact, artifact, FOUND, {"rps": 900})
    after, description = read_artifact(artifact)
    assert description.serving == FOUND
    assert after.lineage[0].digest == before.digest
    assert {name for name, entry in after.files.items() if entry != before.files[name]} == {"artifact.json"}
    assert description.stages[-1] == {"stage": "tune", "rps": 900}


@pytest.mark.long
def test_the_best_settings_end_up_in_a_signed_archive(artifact, tmp_path, root):
    keys, recipe = signing.create_keys(tmp_path / "keys"), root / "recipes/digits.yaml"
    other = FOUND.model_copy(update={"batch_size": 1})
    said = []
    options = {"grid": [FOUND, other], "connections": 8, "seconds": 1.0, "store": tmp_path / "store", "keys": keys}
    chosen = tune(artifact, SETTINGS, recipe, p99_ms=None, say=said.append, **options)
    archive = tmp_path / "store/tiny-1.0.mar"
    signing.verify(archive, keys.public)
    assert read_archive(archive).artifact.serving == chosen.settings in (FOUND, other)
    before = archive.read_bytes()
    with pytest.raises(StageFailed, match="no setting keeps p99"):
        tune(artifact, SETTINGS, recipe, p99_ms=0.001, say=said.append, **options)
    assert archive.read_bytes() == before
