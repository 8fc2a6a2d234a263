"""LitServe, tuned: two workers, batches of up to 32 that wait at most 1 ms."""

import os
from typing import Annotated, Any

import litserve
from fastapi import Body, Request, Response
from predictor import Predictor, is_json

# LitServe parses JSON itself; anything else it takes as FastAPI does
Sent = Request if is_json() else Annotated[bytes, Body()]


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe passes it
        self.predictor = Predictor()

    def decode_request(self, request: Sent) -> Any:  # type: ignore[valid-type]
        return request

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, bodies: list[Any]) -> list[bytes]:
        return self.predictor(bodies)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


if __name__ == "__main__":
    api = Api(max_batch_size=32, batch_timeout=0.001, api_path="/inference")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(port=int(os.environ["BENCH_PORT"]), generate_client_file=False, log_level="warning")
