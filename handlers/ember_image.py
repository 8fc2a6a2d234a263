"""Reading images: the body is a JPEG or PNG file, a form with one, or JSON with base64 of one."""

from typing import Any

import ember_protocol
from ember_handler import EmberHandler
from ember_preprocessing import InvalidInput, image_size

MAGIC = (b"\xff\xd8\xff", b"\x89PNG")


class EmberImage(EmberHandler):
    """Reads raw images besides JSON; what they begin with tells, since clients send all kinds of content types."""

    def body(self, body: Any) -> ember_protocol.Request:
        if isinstance(body, bytes | bytearray) and body.startswith(MAGIC):
            return ember_protocol.Request("single", ({self.preprocessing.inputs[0]["name"]: body},))
        if isinstance(body, bytes | bytearray) and body and not body.lstrip().startswith((b"{", b"[")):
            raise InvalidInput("body", "is neither a JPEG, nor a PNG, nor a JSON object")
        return super().body(body)

    def field(self, part: Any) -> Any:
        return part if isinstance(part, bytes | bytearray) and part.startswith(MAGIC) else super().field(part)

    def sizes(self, request: ember_protocol.Request) -> list[tuple[int, int]]:
        """Height and width of each picture of a request that could be prepared, as it was sent."""
        name = self.preprocessing.inputs[0]["name"]
        return [image_size(name, instance[name]) for instance in request.instances]
