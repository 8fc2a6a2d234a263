"""The same model function for every server: bytes of JSON in, bytes of JSON out, the package run as a worker runs it.

Nothing of a request is checked here: peers are measured without what Emberline's handlers do beside the model.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson

MODEL = Path(os.environ["BENCH_MODEL"])
sys.path.insert(0, os.environ["BENCH_HANDLERS"])
os.environ.setdefault("EMBERLINE_THREADS", "1")

import ember_packages  # noqa: E402 - found by the line above
import torch  # noqa: E402
from ember_preprocessing import Preprocessing  # noqa: E402

torch.set_num_threads(1)


def described() -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((MODEL / "artifact.json").read_bytes())
    return found


def is_json() -> bool:
    """Whether requests are JSON; an image's are its bytes."""
    return bool(described()["preprocessing"]["inputs"][0].get("kind", "tensor") != "image")


class Predictor:
    def __init__(self) -> None:
        facts = described()
        self.spec = facts["preprocessing"]["inputs"][0]
        self.prepare = Preprocessing(facts["preprocessing"])
        self.labels = facts["labels"]
        self.model = ember_packages.load(MODEL, facts, report=print)

    def rows(self, bodies: list[Any]) -> tuple[np.ndarray, ...]:
        name = self.spec["name"]
        if self.spec.get("kind", "tensor") == "tensor":
            return (np.array([_parsed(body)[name] for body in bodies], np.float32),)
        if self.spec["kind"] == "image":
            instances = [{name: bytes(body)} for body in bodies]
        else:
            instances = [_parsed(body) for body in bodies]
        return tuple(np.stack(column) for column in zip(*map(self.prepare, instances), strict=True))

    def __call__(self, bodies: list[Any]) -> list[bytes]:
        outputs = self.model(self.rows(bodies))[0]
        scores = np.exp(outputs - outputs.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
        best = scores.argmax(1)
        return [
            orjson.dumps(
                {"label": self.labels[index], "score": float(row[index]), "scores": row},
                option=orjson.OPT_SERIALIZE_NUMPY,
            )
            for row, index in zip(scores, best, strict=True)
        ]


def _parsed(body: Any) -> Any:
    """A server that has parsed the JSON itself passes what it says."""
    return body if isinstance(body, dict) else orjson.loads(body)
