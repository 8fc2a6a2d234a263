"""Servers in the place of TorchServe, Envoy or a cluster's API: real HTTP, answered by a function of the test."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partialmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Any
    content: bytes


@pytest.fixture
def serve_json():
    """Starts a server; it returns HOST:PORT, and answers each request with the status and the JSON that `answer` says.

    Headers may follow as a third one. All servers end with the test.
    """
    servers = []

    def start(answer: Callable[[Request], tuple]) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, method):
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, body, *more = answer(Request(method, self.path, self.headers, content))
                told = json.dumps(body).encode()
                self.send_response(status)
                headers = {"content-type": "application/json", "content-length": str(len(told))}
                for name, value in {**headers, **(more[0] if more else {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_):
                """Quiet."""

        for method in ("GET", "POST", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", partialmethod(Handler.answer, method))
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
