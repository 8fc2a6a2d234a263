"""BentoML, two workers with its adaptive batching, which batches arrays: so the rows travel as arrays."""

import os

import bentoml
import numpy as np
from predictor import Predictor


@bentoml.service(workers=2, traffic={"timeout": 30})
class Model:
    def __init__(self) -> None:
        self.predictor = Predictor()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000, route="/inference")
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.predictor.model((x.astype(np.float32),))[0]


os.environ.setdefault("BENTOML_DO_NOT_TRACK", "1")
