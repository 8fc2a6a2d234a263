"""The OpenAPI document: what it allows is answered, what it forbids is refused, by the very handlers."""

import json
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

from emberline import signing
from emberline.archive.store import write_archive
from emberline.archivefile import read_archive
from emberline.errors import EmberlineError
from emberline.openapi import document
from emberline.recipe import Archive

NUMBERS = {"inputs": [{"name": "x", "shape": [2, 2], "minimum": -10, "maximum": 10}]}
TEXT = {"inputs": [{"name": "text", "kind": "text", "length": 4, "tokenizer": "bytes"}]}


def summed():
    from torch import nn

    class Summed(nn.Module):
        def forward(self, x):
            return x.float().flatten(1)[:, :2]

    return Summed()


@pytest.fixture(scope="module")
def archive(export_artifact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openapi")
    keys = signing.create_keys(folder / "keys")

    def made(model, spec, instance, handler="auto", version="1.0"):
        artifact = export_artifact(folder / model / version / "fp32", summed(), spec, instance, "ab")
        settings = Archive(model=model, versions={"fp32": version}, handler=handler)
        return write_archive(artifact, settings, folder / "recipe.yaml", store=folder / "store", keys=keys).path

    return made


@pytest.fixture(scope="module")
def numbers(archive):
    return archive("numbers", NUMBERS, {"x": [[1, 2], [3, 4]]}, "ranking")


@pytest.fixture(scope="module")
def worker(numbers, make_worker):
    return make_worker(numbers.parents[1] / "numbers/1.0/fp32", "ranking_handler.py")


@pytest.fixture(scope="module")
def found(numbers, archive):
    text = archive("words", TEXT, {"text": "abcd"})
    return document([read_archive(numbers), read_archive(text)], server="http://router")


def validator(found, model, content="application/json"):
    schema = found["paths"][f"/predictions/{model}"]["post"]["requestBody"]["content"][content]["schema"]
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize(
    ("body", "is_right"),
    [
        ({"x": [[1, 2], [3, 4]]}, True),
        ({"x": [1, 2, 3, 4]}, True),
        ({"instances": [{"x": [[1, 2], [3, 4]]}]}, True),
        ({"items": [{"id": "a", "x": [[1, 2], [3, 4]]}], "top": 1}, True),
        ({"context": {"x": [1, 2, 3, 4]}, "items": [{"id": "a"}]}, True),
        ({"x": [[1, 2], [3, 11]]}, False),
        ({"x": [[1, 2, 3], [3, 4, 5]]}, False),
        ({"x": [1, 2, 3]}, False),
        ({"y": [1, 2, 3, 4]}, False),
        ({"instances": []}, False),
        ({"items": []}, False),
        ({"items": [{"id": {}, "x": [1, 2, 3, 4]}]}, False),
        ({"items": [{"id": 2**64, "x": [1, 2, 3, 4]}]}, False),
        ({"items": [{"x": [1, 2, 3, 4]}], "top": 0}, False),
        ([], False),
    ],
)
def test_what_the_document_allows_the_handler_takes(found, worker, body, is_right):
    answer = worker.ask(json.dumps(body).encode())[0]
    assert validator(found, "numbers").is_valid(body) == is_right
    assert (answer.status == 200) == is_right, answer.json
    if is_right:
        schema = found["paths"]["/predictions/numbers"]["post"]["responses"]["200"]
        Draft202012Validator(schema["content"]["application/json"]["schema"]).validate(answer.json)


def test_text_may_be_bare(found):
    assert validator(found, "words").is_valid({"text": "hello"})
    assert not validator(found, "words").is_valid({"text": " "})
    assert validator(found, "words", "text/plain").is_valid("hello")


def test_every_path_the_router_serves_is_there(found):
    assert set(found["paths"]) == {
        *("/livez", "/readyz", "/v1/outcomes", "/v2", "/v2/health/live", "/v2/health/ready"),
        *(f"/v2/models/{model}{what}" for model in ("numbers", "words") for what in ("", "/ready", "/infer")),
        *("/predictions/numbers", "/predictions/words"),
    }
    refused = found["paths"]["/predictions/words"]["post"]["responses"]
    assert {"400", "413", "429", "500", "503", "504"} <= set(refused)


def test_versions_that_take_different_inputs_have_no_one_document(numbers, archive):
    other = archive("numbers", {"inputs": [{"name": "x", "shape": [3]}]}, {"x": [1, 2, 3]}, version="2.0")
    with pytest.raises(EmberlineError, match="takes other inputs of numbers"):
        document([read_archive(numbers), read_archive(other)], server="http://router")


def test_the_verb_prints_the_document_of_the_store(numbers):
    command = [sys.executable, "-m", "emberline.cli", "openapi", numbers, "--url", "http://here:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    printed = json.loads(done.stdout)
    assert (printed["openapi"], printed["servers"]) == ("3.1.1", [{"url": "http://here:1"}])
