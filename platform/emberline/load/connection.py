"""One HTTP/1.1 connection over asyncio's streams: on the machine that is measured, load itself must cost little."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

# of an answer's head in lower case
_STATUS = re.compile(rb"(http/1\.[01]) (\d{3})[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r")
_CLOSE = re.compile(rb"\r\nconnection:[^\r]*\bclose\b")
_KEEP_ALIVE = re.compile(rb"\r\nconnection:[^\r]*\bkeep-alive\b")
OWN_HEADERS = ("content-length", "transfer-encoding", "connection")  # which this module answers for


@dataclass(frozen=True)
class Target:
    """Where requests go.

    Attributes:
        headers: sent with each, in place of those of the same name that are sent anyway.
    """

    host: str
    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self, body: bytes, content_type: str = "application/json", headers: str = "") -> bytes:
        """A whole POST as it travels.

        Args:
            headers: further ones, each ended by CRLF.
        """
        sent = {"host": f"{self.host}:{self.port}", "content-type": content_type}
        sent |= {name.lower(): value for name, value in self.headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        head = f"POST {self.path} HTTP/1.1\r\n{lines}{headers}"
        return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Connection:
    """Asks one request after the other.

    Attributes:
        is_over: the server closes it after the answer that was read last.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.is_over = False

    @classmethod
    async def open(cls, target: Target) -> Self:
        return cls(*await asyncio.open_connection(target.host, target.port))

    async def ask(self, request: bytes) -> int:
        """The status of the answer, which is read to its end.

        Raises:
            OSError, asyncio.IncompleteReadError: the connection ended before, or what came is no answer.
        """
        self._writer.write(request)
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        except asyncio.LimitOverrunError as error:
            raise OSError("an answer whose head has no end") from error
        length, status = _LENGTH.search(head), _STATUS.match(head)
        if length is None or status is None:
            raise OSError("an answer without a status or a length")
        await self._reader.readexactly(int(length[1]))
        # HTTP/1.0 closes unless it says otherwise
        self.is_over = _CLOSE.search(head) is not None or (
            status[1] == b"http/1.0" and _KEEP_ALIVE.search(head) is None
        )
        return int(status[2])

    def close(self) -> None:
        self._writer.close()
