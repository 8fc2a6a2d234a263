"""The model of the lost-request benchmarks: `outputs` is the input reversed plus the archive's bias, so that any answer
can be told right from wrong.
"""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import orjson


class Answering:
    def initialize(self, context: Any) -> None:
        folder = Path(context.system_properties["model_dir"])
        self.bias = json.loads((folder / "behaviour.json").read_bytes())["bias"]
        logging.getLogger().setLevel("WARNING")

    def handle(self, rows: list[dict[str, Any]], context: Any) -> list[bytes]:
        bodies = [orjson.loads(row["body"]) for row in rows]
        time.sleep(max(body.get("sleep_s", 0) for body in bodies))
        for index in range(len(rows)):
            context.set_response_content_type(index, "application/json")
        answers = ([value + self.bias for value in reversed(body["x"])] for body in bodies)
        return [orjson.dumps({"outputs": outputs, "pid": os.getpid()}) for outputs in answers]
