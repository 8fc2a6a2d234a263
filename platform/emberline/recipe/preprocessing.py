"""From what a client sends to what the model takes."""

from typing import Any, Literal

from pydantic import Field, model_validator

from emberline.recipe.fields import Section


class Input(Section):
    """One named input as a client sends it."""

    name: str
    kind: Literal["tensor", "image", "text"] = "tensor"
    dtype: Literal["float32", "int64", "uint8"] = "float32"
    shape: tuple[int, ...] = ()
    """Shape of one row, without the batch dimension; images need none."""
    minimum: float | None = None
    maximum: float | None = None
    length: int | None = Field(default=None, ge=1)
    """Of a text: tokens the model takes at most; longer texts are cut there."""
    padding: Literal["batch", "length"] | None = None
    """Of a text: padded with 0 to the longest text of a `batch` (the default), so the model has to mask padding, or all
    to `length`."""
    tokenizer: dict[str, Any] | str | None = None
    """Of a text: `bytes` (ids 1 to 256), `words` (hashed), or a `tokenizer.json` (here its content)."""
    vocabulary: int | None = Field(default=None, ge=3)
    """Of a text in `words`: how many ids there are, padding included."""

    @model_validator(mode="after")
    def _settings_fit_the_kind(self) -> "Input":
        of_texts = ("length", "padding", "tokenizer", "vocabulary")
        given = {key for key in of_texts if getattr(self, key) is not None}
        if self.kind != "text" and given:
            raise ValueError(f"{', '.join(sorted(given))} does nothing with kind {self.kind}; leave it out")
        if self.kind == "text" and (self.length is None or self.tokenizer is None):
            raise ValueError("an input of kind text needs length and tokenizer")
        if (self.tokenizer == "words") != (self.vocabulary is not None):
            raise ValueError("vocabulary belongs to tokenizer: words, which needs it")
        return self


class Step(Section):
    """One step of preprocessing; `handlers/ember_preprocessing.py` holds the only definition of what each does."""

    op: Literal["scale", "normalise", "reshape", "resize", "channels_first"]
    by: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    shape: tuple[int, ...] | None = None
    size: tuple[int, int] | None = None


class Preprocessing(Section):
    """From what a client sends to what the model takes: data, not code, so trainer and handler apply the same."""

    inputs: tuple[Input, ...] = Field(min_length=1)
    steps: tuple[Step, ...] = ()
    """Applied to the first input; further inputs go to the model as they are."""
