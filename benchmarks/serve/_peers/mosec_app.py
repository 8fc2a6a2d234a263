"""mosec, tuned: two workers, batches of up to 32 that wait at most 1 ms."""

from mosec import Server, Worker
from predictor import Predictor


class Model(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.predictor = Predictor()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        return self.predictor(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=2, max_batch_size=32, max_wait_time=1)
    server.run()
