"""A handler as TorchServe's documentation has them: a loop over rows, dicts out."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["BENCH_MODEL"] = os.environ["BENCH_HANDLERS"] = str(Path(__file__).resolve().parent)
sys.path.insert(0, os.environ["BENCH_MODEL"])


class Naive:
    def initialize(self, _context: object) -> None:
        from predictor import Predictor

        self.predictor = Predictor()

    def handle(self, data: Sequence[Mapping[str, Any]], _context: object) -> list[Any]:
        answers = []
        for row in data:
            body = row.get("body") or row.get("data")
            sent = bytes(body) if isinstance(body, bytes | bytearray) else json.dumps(body).encode()
            answers += [json.loads(answer) for answer in self.predictor([sent])]
        return answers
