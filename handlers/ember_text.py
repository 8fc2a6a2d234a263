"""Text to token ids: the tokenizer is part of the input's specification, so it travels inside the archive.

    bytes   each byte of the UTF-8 text is one token, 1 to 256
    words   lower-cased words and single signs, hashed into a vocabulary of a given size
    {…}     the content of a `tokenizer.json`, run by the library `tokenizers`

0 is padding and stands last; a text of more tokens than the model takes is cut there. Each row is padded to that
length, so that any rows stack; what is padding in all rows of a batch is left out of it later, which `longest` tells.
"""

import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
MAX_CHARACTERS = 1_000_000
_MOST_KNOWN = 16  # specifications; a trainer makes one anew at each evaluation
_WORD = re.compile(r"\w+|[^\w\s]")
_BLANKS = re.compile(r"(\s{16})\s+")  # more white space than anybody means; a text that is cut must not be cut to it


def tokenize(spec: Mapping[str, Any], text: str) -> Ids:
    """Ids of one text, shape (length,), int64.

    Raises:
        UnicodeEncodeError: the text holds half a surrogate pair, which no encoding has.
    """
    length = int(spec["length"])
    enough = _enough(length)
    if len(text) > enough and spec["tokenizer"] != "bytes":
        text = _BLANKS.sub(r"\1", text)
    ids = _tokenizer_of(spec)(text[:enough])[:length]
    row = np.zeros(length, np.int64)
    row[: len(ids)] = ids
    return row


def longest(ids: NDArray[Any], least: int = 1) -> int:
    """Tokens of the longest row of a batch (B, length), but never below `least`."""
    used = np.flatnonzero(ids.any(axis=0))
    return int(min(max(least, used[-1] + 1 if used.size else 0), ids.shape[1]))


def _enough(length: int) -> int:
    """Characters that certainly hold `length` tokens and keep a very long text from costing its whole length."""
    return max(4096, 64 * length)


# by the specification's own object, which is kept with it so that no other takes its number: the content of a
# `tokenizer.json` is too large to be looked up by at each text
_KNOWN: dict[int, tuple[Mapping[str, Any], Callable[[str], list[int]]]] = {}


def _tokenizer_of(spec: Mapping[str, Any]) -> Callable[[str], list[int]]:
    known = _KNOWN.get(id(spec))
    if known is None:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.pop(next(iter(_KNOWN)), None)
        made = _tokenizer(json.dumps(spec["tokenizer"]), int(spec.get("vocabulary") or 0))
        known = _KNOWN[id(spec)] = (spec, made)
    return known[1]


@cache
def _tokenizer(content: str, vocabulary: int) -> Callable[[str], list[int]]:
    chosen = json.loads(content)
    if chosen == "bytes":
        return lambda text: [byte + 1 for byte in text.encode()]
    if chosen == "words":
        return lambda text: _hashed_words(text, vocabulary)
    from tokenizers import Tokenizer  # an archive that needs it says so in its model card

    tokenizer = Tokenizer.from_str(json.dumps(chosen))
    tokenizer.no_padding()
    tokenizer.no_truncation()  # both are done here, for the length that the model takes
    # a Rust extension: half a surrogate pair is looked for first, since it raises what is no subclass of Exception
    return lambda text: list(tokenizer.encode(text.encode().decode()).ids)


def _hashed_words(text: str, vocabulary: int) -> list[int]:
    """1 to vocabulary - 1, the same on every machine and in every version of Python."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    return [1 + zlib.crc32(word.encode()) % (vocabulary - 1) for word in words]


def free_tokens(described: Mapping[str, Any], package: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Of each input the least tokens of a batch; None where its rows are all of one shape, as in older papers."""
    free = package.get("tokens") or {}
    names = [spec["name"] for spec in described["preprocessing"]["inputs"]]
    return tuple(int(free[name]["least"]) if name in free else None for name in names)


def cut(batch: Sequence[NDArray[Any]], tokens: Sequence[int | None]) -> list[NDArray[Any]]:
    """A batch as a program takes it: without tokens that are padding in all rows, each array in memory of its own."""
    return [
        _owned(array if least is None else array[:, : longest(array, least)])
        for array, least in zip(batch, tokens, strict=True)
    ]


def _owned(array: NDArray[Any]) -> NDArray[Any]:
    """Rows in one contiguous, writable piece of memory, which is what torch takes over without a copy."""
    return np.require(array, requirements=("C", "W"))
