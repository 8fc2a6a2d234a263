"""Workers' processor time is read from this machine's own processes, and from nobody else's."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from emberline.rollout.clocks import read_clocks


@pytest.fixture
def management():
    """TorchServe's description of two versions: one whose worker is this very process, one whose worker has died."""
    pids = {"1.0": os.getpid(), "1.1": 2**22 + 1}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            version = self.path.rpartition("/")[2]
            worker = {"id": "9000", "status": "READY", "pid": pids[version]}
            facts = {"modelName": "digits", "modelVersion": version, "modelUrl": "x.mar", "workers": [worker]}
            content = json.dumps([{**facts, "minWorkers": 1, "jobQueueStatus": {"pendingRequests": 0}}]).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_clock_of_a_living_worker_runs_and_a_dead_one_has_none(made, management):
    running = made.in_step(2)
    first = read_clocks(management, running)
    ((key, seconds),) = first.items()
    assert key.startswith(f"fp32/{os.getpid()}-")
    sum(number * number for number in range(3_000_000))
    assert read_clocks(management, running)[key] > seconds


def test_workers_of_another_machine_are_not_looked_for_here(made):
    assert read_clocks("serve.models.svc:8086", made.in_step(2)) is None
