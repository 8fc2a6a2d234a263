"""Triton's native Python backend, tuned: two instances, batches of up to 32 that wait at most 1 ms.

Becomes `model.py` of a model repository; the server finds `predictor` by PYTHONPATH.
"""

import numpy as np
import triton_python_backend_utils as utils
from predictor import Predictor


class TritonPythonModel:
    def initialize(self, _args: dict[str, str]) -> None:
        self.predictor = Predictor()
        self.name = self.predictor.spec["name"]
        self.is_tensor = self.predictor.spec.get("kind", "tensor") == "tensor"

    def execute(self, requests: list) -> list:
        arrays = [utils.get_input_tensor_by_name(request, self.name).as_numpy() for request in requests]
        rows = np.concatenate(arrays)
        outputs = self.predictor.model((rows,) if self.is_tensor else self._prepared(rows))[0]
        scores = np.exp(outputs - outputs.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
        pieces = np.split(scores, np.cumsum([len(one) for one in arrays])[:-1])
        return [utils.InferenceResponse([utils.Tensor("scores", piece)]) for piece in pieces]

    def _prepared(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        instances = [{self.name: value.decode()} for value in rows.reshape(-1)]
        return tuple(np.stack(column) for column in zip(*map(self.predictor.prepare, instances), strict=True))
