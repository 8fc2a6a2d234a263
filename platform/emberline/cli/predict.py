"""`emberline predict`."""

import sys
import uuid
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from emberline.cli.options import Header

_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_HINT = 'a JSON file such as {"pixels": [[…]]}, an image, or - for stdin'


def predict(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    *,
    url: str = "http://127.0.0.1:8080",
    model: str = "digits",
    unit: str | None = None,
    unit_header: str = "x-unit-id",
    header: Header = (),
    timeout_s: float = 10.0,
) -> None:
    """Send one file to the router and print the answer as JSON.

    Args:
        file: JSON as the model takes it, or a JPEG or PNG; `-` reads standard input.
        url: The router's address.
        model: The model's name at the router.
        unit: Whom the request is for; the same unit always meets the same variant. A new one is made up when absent.
        unit_header: Header that says whom the request is for.
        timeout_s: Seconds of silence after which a try is given up.
    """
    import orjson

    from emberline.client import Client, read_headers

    headers = read_headers("predict", header, but=(unit_header, "content-length", "transfer-encoding"))
    if unit is None:
        unit = f"predict-{uuid.uuid4().hex[:8]}"
        print(f"asking as a new unit, {unit}; --unit {unit} meets the same variant again", file=sys.stderr)
    with Client(url, headers=headers, unit_header=unit_header, timeout_s=timeout_s) as client:
        answer = client.predict(model, _content(file), unit=unit)
    if answer.version is not None:
        print(f"version {answer.version}, variant {answer.variant}, request {answer.request_id}", file=sys.stderr)
    print(orjson.dumps(answer.body, option=orjson.OPT_INDENT_2).decode())


def _content(file: Path) -> dict[str, Any] | bytes:
    """What is in the file: an image as it is, anything else as a JSON object."""
    import orjson

    from emberline.errors import InvalidSetting, MissingFile

    if str(file) == "-":
        content = sys.stdin.buffer.read()
    elif file.is_file():
        content = file.read_bytes()
    else:
        raise MissingFile(file, "the input", hint=_HINT)
    if content.startswith(_IMAGES):
        return content
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidSetting(file, "the input", str(error), "JSON, a JPEG or a PNG", hint=_HINT) from error
    if not isinstance(value, dict):
        raise InvalidSetting(file, "the input", type(value).__name__, "a JSON object of the model's inputs", hint=_HINT)
    return value
