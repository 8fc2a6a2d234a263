"""Twenty kinds of malformed requests mixed into good traffic, for every handler, in a TorchServe that is really there.

Each round holds good requests with known answers and every bad one once, in an order drawn by the trial's number.
Every good one must be answered right, every bad one 4xx with the field named, and no worker may die. The memory of all
workers may not grow by more than 5 % from the tenth round to the last.

The mutant `BENCH_MUTANT=trusting` serves a handler that checks nothing, which must miss the target.
"""

import asyncio
import base64
import io
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
from _emberline import served
from _models import artifact
from PIL import Image

from emberline import signing
from emberline.archive.store import write_archive, write_cascade
from emberline.recipe import Archive

TARGET = (
    "every good request answered right, every bad one 4xx with its field, 0 worker deaths, memory up by 5 % at most"
)
TRIALS = 1
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "60"))
GOOD = 20  # beside the bad ones of each round
HANDLERS = ("tensor", "image", "text", "ranking", "detection", "segmentation", "cascade")
_TRUSTING = """
import orjson
from ember_handler import EmberHandler
class Trusting(EmberHandler):
    def prepare(self, request):
        return [tuple(__import__("numpy").asarray(one[n], "float32") for n in one) for one in request.instances]
"""


def trial(folder: Path, number: int) -> dict[str, Any]:
    for kind in HANDLERS:
        (folder / kind).mkdir()
    return {kind: asyncio.run(_one(kind, folder / kind, number)) for kind in HANDLERS}


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    every = [facts for one in trials for facts in one.values()]
    totals = {
        key: sum(facts[key] for facts in every)
        for key in ("good", "good_wrong", "bad", "bad_not_named", "worker_deaths")
    }
    growth = max(facts["memory_growth"] for facts in every)
    reached = not (totals["good_wrong"] or totals["bad_not_named"] or totals["worker_deaths"]) and growth <= 0.05
    return {**totals, "kinds": min(facts["kinds"] for facts in every), "memory_growth": growth, "reached": reached}


async def _one(kind: str, folder: Path, number: int) -> dict[str, Any]:
    made, good = _MODELS[kind]()
    keys = signing.create_keys(folder / "keys")
    handler = kind
    if os.environ.get("BENCH_MUTANT") == "trusting":
        (folder / "trusting_handler.py").write_text(_TRUSTING)
        handler = "trusting_handler.py"
    archive = _archived(made, kind, handler, folder, keys)
    bad = [*_common(good), *_SPECIAL[kind](good)]
    draw, seen, memory = random.Random(number), Counter[str](), []
    with served(folder, [archive], keys.public.parent) as (address, pid):
        async with httpx.AsyncClient(timeout=60) as client:
            url = f"http://{address}/predictions/{kind}/1.0"
            right = (await client.post(url, json=good)).json()
            workers = _workers(pid)
            for _ in range(ROUNDS):
                requests = [("good", json.dumps(good).encode())] * GOOD + bad
                draw.shuffle(requests)
                answers = await asyncio.gather(*(client.post(url, content=body, headers=_JSON) for _, body in requests))
                for (name, _), answer in zip(requests, answers, strict=True):
                    _judge(name, answer, right, seen)
                memory.append(sum(process.memory_info().rss for process in _workers(pid).values()))
            deaths = len(workers.keys() - _workers(pid).keys())
    return {
        "kinds": len(bad),
        "good": ROUNDS * GOOD,
        "good_wrong": seen["good_wrong"],
        "bad": ROUNDS * len(bad),
        "bad_not_named": sum(count for name, count in seen.items() if name.startswith("not named")),
        "which": sorted(name for name in seen if name.startswith("not named")),
        "worker_deaths": deaths,
        "memory_growth": round(memory[-1] / memory[min(10, len(memory) - 1)] - 1, 4),
    }


def _archived(made: Path, kind: str, handler: str, folder: Path, keys: signing.Keys) -> Path:
    """The artifact as a signed archive; of a cascade all that lie beside it, lightest first."""
    recipe, store = folder / "recipe.yaml", folder / "store"
    if kind != "cascade" or handler != kind:
        settings = Archive.model_validate({"model": kind, "versions": {made.name: "1.0"}, "handler": handler})
        return write_archive(made, settings, recipe, store=store, keys=keys).path
    passes = [{"artifact": "light", "confidence": 0.9}, {"artifact": made.name}]
    cascades = {kind: {"version": "1.0", "passes": passes}}
    settings = Archive.model_validate({"model": kind, "versions": {made.name: "0.9"}, "cascades": cascades})
    return write_cascade(made.parent, kind, settings, recipe, store=store, keys=keys).path


def _judge(name: str, answer: httpx.Response, right: Any, seen: Counter[str]) -> None:
    if name == "good":
        seen["good_wrong"] += answer.status_code != httpx.codes.OK or not _same(answer.json(), right)
        return
    try:
        named = answer.status_code // 100 == 4 and answer.json()["field"] and "Traceback" not in answer.text
    except (ValueError, KeyError, TypeError):
        named = False
    if not named:
        seen[f"not named: {name}: {answer.status_code} {answer.text[:80]}"] += 1


def _same(got: Any, right: Any) -> bool:
    """Equal but for the last digits, which depend on the batch's size."""
    if isinstance(right, dict):
        return (
            isinstance(got, dict) and got.keys() == right.keys() and all(_same(got[key], right[key]) for key in right)
        )
    if isinstance(right, list):
        return isinstance(got, list) and len(got) == len(right) and all(map(_same, got, right))
    return abs(got - right) < 1e-4 if isinstance(right, float) else bool(got == right)


def _workers(pid: int) -> dict[int, psutil.Process]:
    """TorchServe's Python workers below `emberline serve`: those that have PyTorch in their memory."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if any("libtorch_cpu" in entry.path for entry in process.memory_maps()):
                found[process.pid] = process
        except psutil.Error:
            continue
    return found


_JSON = {"content-type": "application/json"}
Bad = tuple[str, bytes]


def _common(good: dict[str, Any]) -> list[Bad]:
    """Kinds that every handler must refuse; the text handler takes what is no JSON for text, hence the brackets."""
    name = next(iter(good))
    whole = json.dumps(good).encode()
    oip = {"name": name, "shape": [1, 2, 3], "datatype": "FP32", "data": [1]}
    return [
        ("truncated", whole[:-2]),
        ("deep", b"[" * 5000),
        ("array", b"[1, 2]"),
        ("empty object", b"{}"),
        ("empty list of instances", b'{"instances": []}'),
        ("an instance that is a number", b'{"instances": [3]}'),
        ("instances beside others", json.dumps({"instances": [good], name: 1}).encode()),
        ("an unknown field", json.dumps({**good, "colour": "red"}).encode()),
        ("a missing field", json.dumps({key: good[key] for key in list(good)[1:]} or {"other": 1}).encode()),
        ("null", json.dumps({**good, name: None}).encode()),
        ("a boolean", json.dumps({**good, name: True}).encode()),
        ("an object", json.dumps({**good, name: {"a": 1}}).encode()),
        ("an invalid byte", whole.replace(b'"', b'"\xff', 1)),
        ("a duplicate open inference input", json.dumps({"inputs": [oip, oip]}).encode()),
        ("an open inference shape of text", json.dumps({"inputs": [{**oip, "shape": "x"}]}).encode()),
        ("no open inference inputs", b'{"inputs": []}'),
        ("too many rows", json.dumps({"inputs": [{**oip, "shape": [10**9]}]}).encode()),
    ]


def _numbers(good: dict[str, Any]) -> list[Bad]:
    name, value = next(iter(good.items()))
    return [
        ("NaN", json.dumps({**good, name: [float("nan")] * len(value)}).encode()),
        ("a number too large", json.dumps({**good, name: [1e300] * len(value)}).encode()),
        ("out of range", json.dumps({**good, name: [1e6] * len(value)}).encode()),
        ("text for numbers", json.dumps({**good, name: "much"}).encode()),
        ("a ragged list", json.dumps({**good, name: [[1, 2], [3]]}).encode()),
    ]


def _images(good: dict[str, Any]) -> list[Bad]:
    whole = base64.b64decode(good["image"])
    huge = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(huge, "PNG")
    return [
        ("no base64", b'{"image": "***"}'),
        ("half an image", whole[: len(whole) // 2]),
        ("a header alone", b"\x89PNG\r\n\x1a\n"),
        ("a bomb", json.dumps({"image": base64.b64encode(huge.getvalue()).decode()}).encode()),
        ("a number for an image", b'{"image": 3}'),
    ]


def _texts(_good: dict[str, Any]) -> list[Bad]:
    return [
        ("no text", b'{"text": ""}'),
        ("half a surrogate pair", b'{"text": "\\ud800"}'),
        ("no UTF-8", b"\xff\xfe\x00"),
        ("a list of texts", b'{"text": ["a"]}'),
        ("a text too long", json.dumps({"text": "a" * 1_100_000}).encode()),
    ]


def _rankings(good: dict[str, Any]) -> list[Bad]:
    return [
        *_numbers(good),
        ("no items", b'{"items": []}'),
        ("an item that is a number", b'{"items": [1]}'),
        ("top of nothing", json.dumps({"items": [good], "top": 0}).encode()),
        ("a context that is a list", json.dumps({"items": [good], "context": [1]}).encode()),
    ]


_FOUR = {"inputs": [{"name": "x", "shape": [4], "minimum": -10, "maximum": 10}]}
_GOOD_FOUR = {"x": [0.5, -0.25, 1.0, 0.0]}


def _tensor_model() -> tuple[Path, dict[str, Any]]:
    from emberline.models.mlp import mlp

    return artifact("malformed-tensor", lambda: mlp(4, 3, hidden=(8,)), _FOUR, _GOOD_FOUR, "abc"), _GOOD_FOUR


_PICTURE = {
    "inputs": [{"name": "image", "kind": "image"}],
    "steps": [{"op": "resize", "size": [16, 16]}, {"op": "scale", "by": 1 / 255}, {"op": "channels_first"}],
}


def _picture() -> dict[str, Any]:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((16, 16)).save(file, "PNG")
    return {"image": base64.b64encode(file.getvalue()).decode()}


def _image_model() -> tuple[Path, dict[str, Any]]:
    from emberline.models.mlp import mlp

    return artifact("malformed-image", lambda: mlp(768, 3, hidden=(8,)), _PICTURE, _picture(), "abc"), _picture()


def _text_model() -> tuple[Path, dict[str, Any]]:
    from torch import nn

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(257, 8), nn.Linear(8, 3)

        def forward(self, ids: Any) -> Any:
            return self.out(self.table(ids).mean(1))

    good = {"text": "a good text"}
    spec = {"inputs": [{"name": "text", "kind": "text", "length": 32, "tokenizer": "bytes"}]}
    return artifact("malformed-text", Bag, spec, good, "abc"), good


def _detector() -> tuple[Path, dict[str, Any]]:
    """Three boxes in each picture, the surer of their class the brighter it is."""
    import torch
    from torch import nn

    class Finder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            boxes = [[0.5, 0.25, 1, 0.75, -2, -9], [0.5, 0.25, 1, 0.8, -2.5, -9], [0, 0, 0.5, 0.5, -9, -3]]
            self.register_buffer("found", torch.tensor([boxes]))

        def forward(self, pixels: Any) -> Any:
            light = 4 * pixels.mean((1, 2, 3)).view(-1, 1, 1).expand(-1, 3, 2)
            return self.found + torch.cat([torch.zeros_like(light).repeat(1, 1, 2), light], dim=2)

    return artifact("malformed-detection", Finder, _PICTURE, _picture(), "ab", task="detection"), _picture()


def _segmenter() -> tuple[Path, dict[str, Any]]:
    from emberline.models.unet import unet

    made = artifact(
        "malformed-segmentation", lambda: unet(3, width=4), _PICTURE, _picture(), "abc", task="segmentation"
    )
    return made, _picture()


def _cascaded() -> tuple[Path, dict[str, Any]]:
    from emberline.models.mlp import mlp

    for name, width in (("light", 4), ("heavy", 16)):
        made = artifact("malformed-cascade", lambda: mlp(4, 3, hidden=(width,)), _FOUR, _GOOD_FOUR, "abc", name=name)  # noqa: B023
    return made, _GOOD_FOUR


_MODELS = {
    "tensor": _tensor_model,
    "image": _image_model,
    "text": _text_model,
    "ranking": _tensor_model,
    "detection": _detector,
    "segmentation": _segmenter,
    "cascade": _cascaded,
}
_SPECIAL = {
    "tensor": _numbers,
    "image": _images,
    "text": _texts,
    "ranking": _rankings,
    "detection": _images,
    "segmentation": _images,
    "cascade": _numbers,
}
