"""Handlers as a TorchServe worker has them: loaded by its loader, with its context, from an archive's flat folder."""

import json
import logging
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ts.context import RequestProcessor
from ts.model_loader import TsModelLoader

HANDLERS = Path(__file__).parents[2] / "handlers"
sys.path.insert(0, str(HANDLERS))  # as TorchServe has the archive's root there


@dataclass
class Answer:
    """What one request of a batch is answered."""

    status: int
    content_type: str
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Worker:
    """A handler in TorchServe's own service, without the socket in front."""

    def __init__(self, folder, handler):
        (folder / "MAR-INF").mkdir(exist_ok=True)
        manifest = {"model": {"modelName": "tiny", "modelVersion": "1.0", "handler": handler}}
        (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        self.service = TsModelLoader().load("tiny", str(folder), handler, None, 32, None)

    def ask(self, *requests, headers=None):
        """Answers of one batch; a request is a body, or a dict of a form's fields; `headers` are of all of them."""
        rows = [request if isinstance(request, dict) else {"body": request} for request in requests]
        context = self.service.context
        context.request_processor = [RequestProcessor(dict(headers or {})) for _ in rows]
        bodies = self.service._entry_point(rows, context)
        assert len(bodies) == len(rows)
        return [
            Answer(context.get_response_status(i)[0], context.get_response_content_type(i), body)
            for i, body in enumerate(bodies)
        ]


@pytest.fixture(scope="session", autouse=True)
def _worker_settings_stay_here():
    """A handler quiets the loggers and pins the threads of its process; other tests in this one want theirs back."""
    level, threads = logging.getLogger().level, torch.get_num_threads()
    yield
    logging.getLogger().setLevel(level)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_worker(tmp_path_factory):
    def make(artifact, handler="tensor_handler.py", fill=None):
        """`fill` puts other files than one artifact's into the archive's folder."""
        folder = tmp_path_factory.mktemp("model")
        if fill is not None:
            fill(folder)
        for file in artifact.iterdir() if fill is None else ():
            shutil.copy(file, folder)
        return Worker(folder, handler)

    return make


@pytest.fixture(scope="session")
def tensor_worker(make_worker, tiny_runs):
    return make_worker(tiny_runs / "tiny" / "artifacts" / "fp32")
