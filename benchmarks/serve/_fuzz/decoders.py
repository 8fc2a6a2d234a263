"""Atheris on the handlers' decoders: bodies of every kind through parsing and preprocessing, as a worker does it.

Run as a script with libFuzzer's options; a crash is anything that is raised and is no `InvalidInput`.
"""

import sys

import atheris

with atheris.instrument_imports(include=["ember_oip", "ember_preprocessing", "ember_text"]):
    import ember_oip
    import ember_preprocessing
    import ember_text

import orjson
from ember_preprocessing import InvalidInput, Preprocessing

MAX_ROWS = 64
NUMBERS = Preprocessing(
    {
        "inputs": [
            {"name": "x", "shape": [2, 2], "minimum": -10, "maximum": 10},
            {"name": "ids", "shape": [2], "dtype": "int64"},
        ],
        "steps": [{"op": "scale", "by": 0.5}],
    }
)
IMAGE = Preprocessing({"inputs": [{"name": "image", "kind": "image"}], "steps": [{"op": "resize", "size": [8, 8]}]})
TEXT = {"name": "text", "kind": "text", "length": 8, "tokenizer": "words", "vocabulary": 100}


def decode(data: bytes) -> None:
    """One input through the decoder that its first byte chooses."""
    kind, rest = data[:1], data[1:]
    try:
        if kind < b"\x40":
            IMAGE({"image": rest})
        elif kind < b"\x80":
            ember_preprocessing.decode(TEXT, rest.decode("utf-8", "surrogateescape"))
        else:
            _decode_json(orjson.loads(rest))
    except (InvalidInput, orjson.JSONDecodeError):
        return


def _decode_json(value: object) -> None:
    if not isinstance(value, dict):
        return
    if isinstance(value.get("inputs"), list):
        _, instances = ember_oip.parse(value, MAX_ROWS)
    else:
        instances = [value]
    together = NUMBERS.together(instances)
    if together is None:
        for one in instances:
            NUMBERS(one)


if __name__ == "__main__":
    assert ember_text.MAX_CHARACTERS
    atheris.Setup(sys.argv, decode)
    atheris.Fuzz()
