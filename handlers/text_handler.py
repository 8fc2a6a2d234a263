"""Serves models of text: JSON with the text, or the text itself as a `text/plain` body."""

from typing import Any

import ember_bare
import ember_protocol
from ember_handler import EmberHandler


class TextHandler(EmberHandler):
    """Reads bare text besides JSON.

    A model with labels is a classifier; without, its `outputs` are the text's embedding.
    """

    def body(self, body: Any) -> ember_protocol.Request:
        return super().body(ember_bare.text(self.preprocessing.inputs, body, self.content_type))

    def field(self, part: Any) -> Any:
        return ember_bare.decoded(part) if isinstance(part, bytes | bytearray) else part
