"""Bodies that are no JSON: a picture or a text as it is, which become the row that they stand for.

Pictures are known by what they begin with, since clients send all kinds of content types with them. A text begins with
anything, so its content type decides where it says so: `application/json` is JSON and `text/…` is the text. Where it
says neither, a body is JSON that begins with a brace, or is an array of JSON from its first to its last byte.
"""

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from ember_preprocessing import InvalidInput

MAGIC = (b"\xff\xd8\xff", b"\x89PNG")
JSON = "application/json"

Inputs = Sequence[Mapping[str, Any]]


def is_picture(body: Any) -> bool:
    return isinstance(body, bytes | bytearray) and body.startswith(MAGIC)


def picture(inputs: Inputs, body: Any) -> Any:
    """The row that a raw picture is, or the body as it is to be read as JSON.

    Raises:
        InvalidInput: it is neither.
    """
    if is_picture(body):
        return {inputs[0]["name"]: body}
    if isinstance(body, bytes | bytearray) and body and not body.lstrip().startswith((b"{", b"[")):
        raise InvalidInput("body", "is neither a JPEG, nor a PNG, nor a JSON object")
    return body


def text(inputs: Inputs, body: Any, content_type: str) -> Any:
    """The row that a bare text is, or the body as it is to be read as JSON; a byte order mark is dropped.

    Args:
        body: bytes, or what TorchServe made of them by the content type.
        content_type: in lower case, without parameters; empty where there is none.

    Raises:
        InvalidInput: it is neither.
    """
    if not isinstance(body, bytes | bytearray | str) or not body:
        return body
    if isinstance(body, str) and content_type == JSON:  # TorchServe decoded it
        raise InvalidInput("body", "a JSON string; an object is required")
    content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
    content = content.removeprefix(codecs.BOM_UTF8)
    if content_type == JSON or (not content_type.startswith("text/") and _looks_like_json(content)):
        return content
    return {next(spec["name"] for spec in inputs if spec.get("kind") == "text"): decoded(content)}


def decoded(content: bytes | bytearray) -> str:
    """The text of these bytes.

    Raises:
        InvalidInput: they are none.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("body", "no UTF-8; a JSON object or plain text is required") from error


def _looks_like_json(content: bytes) -> bool:
    start = content.lstrip()[:1]
    if start != b"[":
        return start == b"{"
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError:  # a text that begins with a bracket
        return False
    return True
