"""Serves models of images: the body is a JPEG or PNG file, a form with one, or JSON with base64 of one."""

from typing import Any

import ember_protocol
from ember_handler import EmberHandler

MAGIC = (b"\xff\xd8\xff", b"\x89PNG")


class ImageHandler(EmberHandler):
    """Reads raw images besides JSON; what they begin with tells, since clients send all kinds of content types."""

    def body(self, body: Any) -> ember_protocol.Request:
        if isinstance(body, bytes | bytearray) and body.startswith(MAGIC):
            return ember_protocol.Request("single", ({self.preprocessing.inputs[0]["name"]: body},))
        return super().body(body)

    def field(self, part: Any) -> Any:
        return part if isinstance(part, bytes | bytearray) and part.startswith(MAGIC) else super().field(part)
