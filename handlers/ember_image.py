"""Reading images: the body is a JPEG or PNG file, a form with one, or JSON with base64 of one."""

from typing import Any

import ember_bare
import ember_protocol
from ember_handler import EmberHandler
from ember_preprocessing import image_size


class EmberImage(EmberHandler):
    """Reads raw images besides JSON."""

    def body(self, body: Any) -> ember_protocol.Request:
        return super().body(ember_bare.picture(self.preprocessing.inputs, body))

    def field(self, part: Any) -> Any:
        return part if ember_bare.is_picture(part) else super().field(part)

    def sizes(self, request: ember_protocol.Request) -> list[tuple[int, int]]:
        """Height and width of each picture of a request that could be prepared, as it was sent."""
        name = self.preprocessing.inputs[0]["name"]
        return [image_size(name, instance[name]) for instance in request.instances]
