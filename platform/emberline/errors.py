"""What can go wrong, as exceptions that take typed facts and build their own text.

    EmberlineError            a fact, its place, what was got and required, and a hint; the command line exits with 1
    ├── InvalidSetting        a value of a recipe, an experiment or an option that cannot be used
    │   ├── InvalidFile       a file of settings that cannot be read at all
    │   ├── InvalidCombination  values that are fine alone and break a rule together
    │   ├── InvalidOption     an option of the command line, which then exits with 2: wrong usage
    │   ├── MissingKey        a key without a default that is not given
    │   └── UnknownKey        a key no model knows; names the nearest one that is known
    ├── MissingFile           a file or folder that should be there
    ├── CorruptPaper          a file whose content is not what it must be
    │   ├── ForeignFile       a file that a paper's manifest does not name
    │   └── UnsealedPaper     a manifest without today's seal
    ├── NewerSchema           a paper written by a later Emberline
    ├── MissingTool           a program or package this machine lacks
    └── StageFailed           a stage that ran and could not finish

A floor that needs a finer kind derives it from one of these, in its own module.
"""

from difflib import get_close_matches
from pathlib import Path


class EmberlineError(Exception):
    """A failure a user can act on.

    Args:
        fact: what is so, in one sentence, values included.
        place: the file, setting, rank or address it is about.
        hint: what to do about it.
    """

    def __init__(self, fact: str, *, place: str | Path | None = None, hint: str | None = None) -> None:
        self.fact = fact
        self.place = str(place) if place is not None else None
        self.hint = hint
        super().__init__(f"{self.place}: {fact}" if self.place else fact)

    def __str__(self) -> str:
        text = f"{self.place}: {self.fact}" if self.place else self.fact
        return f"{text}\nhint: {self.hint}" if self.hint else text


class InvalidSetting(EmberlineError):
    """A setting's value cannot be used: `place: key is got; required is required`."""

    def __init__(self, place: str | Path, key: str, got: object, required: str, *, hint: str | None = None) -> None:
        self.key, self.got, self.required = key, got, required
        said = "not given" if got is None else repr(got)
        super().__init__(f"{key} is {said}; {required} is required", place=place, hint=hint)


class InvalidFile(InvalidSetting):
    """A file of settings that cannot be read at all."""

    def __init__(self, path: str | Path, fact: str, *, hint: str | None = None) -> None:
        EmberlineError.__init__(self, fact, place=path, hint=hint)
        self.key, self.got, self.required = "the file", fact, "a file that can be read"


class InvalidCombination(InvalidSetting):
    """Values that are fine alone and break a rule together; the rule tells them itself."""

    def __init__(self, place: str | Path, key: str, rule: str) -> None:
        EmberlineError.__init__(self, f"{key}: {rule}", place=place)
        self.key, self.got, self.required = key, None, rule


class UnknownKey(InvalidSetting):
    """A key that no model knows, with the nearest one that is."""

    def __init__(self, place: str | Path, key: str, known: tuple[str, ...]) -> None:
        near = get_close_matches(key.rsplit(".", 1)[-1], known, n=1, cutoff=0.5)
        EmberlineError.__init__(
            self,
            f"{key} is not a known key",
            place=place,
            hint=f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}",
        )
        self.key, self.got, self.required = key, key, "a known key"


class InvalidOption(InvalidSetting):
    """An option's value cannot be used; the place is the verb, or `command line`."""


class MissingKey(InvalidSetting):
    """A key that has no default is not given."""

    def __init__(self, place: str | Path, key: str, *, hint: str | None) -> None:
        EmberlineError.__init__(self, f"{key} is not given; it has no default", place=place, hint=hint)
        self.key, self.got, self.required = key, None, "a value"


class MissingFile(EmberlineError):
    """A file or folder that should be there is not."""

    def __init__(self, path: str | Path, what: str, *, hint: str | None = None) -> None:
        super().__init__(f"{what} is not there", place=path, hint=hint)


class CorruptPaper(EmberlineError):
    """A file's content is not what it must be; nothing of it may be used."""

    def __init__(self, path: str | Path, got: str, required: str, *, hint: str | None = None) -> None:
        super().__init__(f"content is {got}; required: {required}", place=path, hint=hint)


class ForeignFile(CorruptPaper):
    """A file lies in a paper whose manifest does not name it."""

    def __init__(self, path: str | Path, manifest: str) -> None:
        hint = "remove the file, or make the paper again"
        EmberlineError.__init__(self, f"{manifest} does not name this file", place=path, hint=hint)


class UnsealedPaper(CorruptPaper):
    """A paper's manifest lacks the seal that every version writes by now."""

    def __init__(self, path: str | Path, *, hint: str) -> None:
        EmberlineError.__init__(self, "made by an earlier version of emberline, or altered", place=path, hint=hint)


class NewerSchema(EmberlineError):
    """A paper of a schema this version cannot read."""

    def __init__(self, path: str | Path, got: int, known: int) -> None:
        super().__init__(
            f"schema version is {got}; this version reads up to {known}",
            place=path,
            hint="upgrade emberline, or make the paper again with this version",
        )


class MissingTool(EmberlineError):
    """A program or package this machine lacks, with what that costs."""

    def __init__(self, tool: str, costs: str, *, hint: str) -> None:
        super().__init__(f"{tool} is not installed; {costs}", hint=hint)


class StageFailed(EmberlineError):
    """A stage ran and could not finish."""

    def __init__(self, stage: str, fact: str, *, hint: str | None = None) -> None:
        super().__init__(fact, place=stage, hint=hint)
