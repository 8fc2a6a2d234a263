"""A model server of a few lines, as a process of its own: `python _model.py [VERSION=SHARE]` prints its port.

It answers `/predictions/{model}/{version}` with the body's `n` as the label; the named version fails that share of them
with 500, always the same ones.
"""

import asyncio
import hashlib
import json
import sys

FAILS = dict(pair.split("=") for pair in sys.argv[1:])


def fails(version: str, n: int) -> bool:
    share = float(FAILS.get(version, 0))
    return int.from_bytes(hashlib.blake2b(str(n).encode(), digest_size=4).digest()) < share * 2**32


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            n = json.loads(body)["n"]
            status = "500 Failed" if fails(lines[0].split()[1].rpartition("/")[2], n) else "200 OK"
            answer = b'{"label": "%d", "score": 0.9}' % (n % 10)
            told = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
            writer.write(told.encode() + answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
