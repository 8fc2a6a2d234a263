"""One HTTP/1.1 connection over asyncio's streams: on the machine that is measured, load itself must cost little."""

import asyncio
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    path: str

    def request(self, body: bytes, content_type: str = "application/json", headers: str = "") -> bytes:
        """A whole POST as it travels.

        Args:
            headers: further ones, each ended by CRLF.
        """
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: {content_type}\r\n{headers}"
        )
        return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Connection:
    """Asks one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, target: Target) -> Self:
        return cls(*await asyncio.open_connection(target.host, target.port))

    async def ask(self, request: bytes) -> int:
        """The status of the answer, which is read to its end.

        Raises:
            OSError, asyncio.IncompleteReadError: the connection ended before.
        """
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        _, _, rest = head.lower().partition(b"content-length:")
        if not rest:
            raise OSError("an answer without a length")
        await self._reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        self._writer.close()
