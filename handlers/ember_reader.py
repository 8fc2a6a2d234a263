"""Reads TorchServe's worker protocol through a buffer: one system call a batch instead of one for each four bytes.

TorchServe 0.12.0 receives every length and every field with a `recv` of its own, which is a third of a worker's time.
The front end's frames are parsed here from what one `recv` brought. Only that exact version is patched, and
`EMBERLINE_BUFFERED_READER=0` leaves it alone.

Source: `ts/protocol/otf_message_handler.py` of 0.12.0; a test feeds both readers the same bytes.
"""

import json
import logging
import os
import struct
import sys
from typing import Any, Protocol

import ts
from ts.protocol import otf_message_handler

SWITCH = "EMBERLINE_BUFFERED_READER"
KNOWN_VERSION = "0.12.0"
_RECEIVE_BYTES = 1 << 18
_INTEGER = struct.Struct("!i")
_END = -1

log = logging.getLogger(__name__)


class Connection(Protocol):
    def recv(self, size: int, /) -> bytes: ...


class BufferedReader:
    """Stands before a connection; has `recv` itself, so that TorchServe's own functions can read through it too."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._buffer = b""
        self._at = 0

    def recv(self, size: int) -> bytes:
        """Exactly `size` bytes. Ends the worker, as TorchServe does, when the front end is gone."""
        end = self._at + size
        if end > len(self._buffer):
            self._fill(size)
            end = size
        piece = self._buffer[self._at : end]
        self._at = end
        return piece

    def integer(self) -> int:
        value: int = _INTEGER.unpack(self.recv(4))[0]
        return value

    def field(self) -> bytes:
        return self.recv(self.integer())

    def _fill(self, size: int) -> None:
        """Makes the buffer start with the next `size` bytes."""
        parts = [self._buffer[self._at :]]
        held = len(parts[0])
        while held < size:
            part = self.connection.recv(max(_RECEIVE_BYTES, size - held))
            if not part:
                log.info("Frontend disconnected.")
                sys.exit(0)
            parts.append(part)
            held += len(part)
        self._buffer, self._at = b"".join(parts), 0


_readers: dict[int, BufferedReader] = {}


def retrieve_message(connection: Connection) -> tuple[bytes, Any]:
    """What `retrieve_msg` returns, read through the connection's buffer; takes its place in the worker."""
    reader = _readers.get(id(connection))
    if reader is None or reader.connection is not connection:
        reader = _readers[id(connection)] = BufferedReader(connection)
    command = reader.recv(1)
    if command == otf_message_handler.PREDICT_MSG:
        return command, _batch(reader)
    if command == otf_message_handler.LOAD_MSG:
        return command, otf_message_handler._retrieve_load_msg(reader)  # noqa: SLF001 - the one part not on the hot path
    raise ValueError(f"Invalid command: {command!r}")


def install() -> bool:
    """Patches this worker; call it while TorchServe has no message half read, as inside of `initialize`.

    Returns:
        Whether it was patched: not outside a TorchServe worker, in another version, or switched off.
    """
    worker = sys.modules["__main__"]
    if os.environ.get(SWITCH, "1") == "0" or not hasattr(worker, "TorchModelServiceWorker"):
        return False
    if ts.__version__ != KNOWN_VERSION:
        log.warning(
            "buffered reader is for TorchServe %s; this is %s, it reads unbuffered", KNOWN_VERSION, ts.__version__
        )
        return False
    vars(worker)["retrieve_msg"] = retrieve_message
    return True


def _batch(reader: BufferedReader) -> list[dict[str, Any]]:
    decode = os.environ.get("TS_DECODE_INPUT_REQUEST") in (None, "true")
    batch = []
    while (length := reader.integer()) != _END:
        request: dict[str, Any] = {"requestId": reader.recv(length), "headers": [], "parameters": []}
        while (length := reader.integer()) != _END:
            request["headers"].append({"name": reader.recv(length), "value": reader.field()})
        while (length := reader.integer()) != _END:
            request["parameters"].append(_parameter(reader, reader.recv(length), decode=decode))
        batch.append(request)
    return batch


def _parameter(reader: BufferedReader, name: bytes, *, decode: bool) -> dict[str, Any]:
    content_type = reader.field().decode("utf-8")
    value: Any = reader.field()
    if decode and (content_type == "application/json" or content_type.startswith("text")):
        value = _decoded(value, content_type)
    return {"name": name.decode("utf-8"), "contentType": content_type, "value": value}


def _decoded(value: bytes, content_type: str) -> Any:
    """The JSON value or text; as TorchServe does, the bytes themselves where they are neither."""
    try:
        text = value.decode("utf-8")
        return json.loads(text) if content_type == "application/json" else text
    except (ValueError, RecursionError):
        return value
