"""Serves models of text: JSON with the text, or the text itself as a `text/plain` body."""

from typing import Any

import ember_protocol
from ember_handler import EmberHandler
from ember_preprocessing import InvalidInput


class TextHandler(EmberHandler):
    """Reads bare text besides JSON. JSON objects begin with a brace, which decides: no content type can be relied on.

    A model with labels is a classifier; without, its `outputs` are the text's embedding.
    """

    def body(self, body: Any) -> ember_protocol.Request:
        if isinstance(body, str):
            body = body.encode("utf-8", "surrogatepass")
        if isinstance(body, bytes | bytearray) and body and not body.lstrip().startswith((b"{", b"[")):
            return ember_protocol.Request("single", ({self._text_input(): _decoded(body)},))
        return super().body(body)

    def field(self, part: Any) -> Any:
        return _decoded(part) if isinstance(part, bytes | bytearray) else part

    def _text_input(self) -> str:
        return str(next(spec["name"] for spec in self.preprocessing.inputs if spec.get("kind") == "text"))


def _decoded(content: bytes | bytearray) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("body", "no UTF-8; a JSON object or plain text is required") from error
