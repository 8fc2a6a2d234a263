"""The recipe: one YAML file that says how a model is trained, compressed, archived and served.

Sections of all stages are typed here, without stage code: every verb reads the same file and uses its own section.
Models and data are named as `module:function`, of the user's own code (found beside the recipe file) or of emberline's.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from emberline.errors import InvalidCombination, InvalidFile, InvalidSetting, MissingFile, UnknownKey
from emberline.paper import digest_of

_REFERENCE, _NAME, _VERSION = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", r"^\d+(\.\d+)*$"
_PATTERNS = {
    _REFERENCE: "module:function",
    _NAME: "a name of lower-case letters, digits and dashes",
    _VERSION: "a version such as 1.0",
}
Reference = Annotated[str, Field(pattern=_REFERENCE)]
Name = Annotated[str, Field(pattern=_NAME, max_length=40)]
Version = Annotated[str, Field(pattern=_VERSION)]
M = TypeVar("M", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Model(Section):
    factory: Reference
    arguments: dict[str, Any] = {}


class Data(Section):
    """`source` is called with `arguments` and returns `emberline.data.Splits`."""

    source: Reference
    arguments: dict[str, Any] = {}


class Input(Section):
    """One named input as a client sends it."""

    name: str
    kind: Literal["tensor", "image"] = "tensor"
    dtype: Literal["float32", "int64", "uint8"] = "float32"
    shape: tuple[int, ...] = ()
    """Shape of one row, without the batch dimension; images need none."""
    minimum: float | None = None
    maximum: float | None = None


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


class Optimizer(Section):
    name: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)


class EarlyStopping(Section):
    """Ends training when validation has not improved for a while, and goes back to the best weights."""

    metric: Literal["accuracy", "loss"] = "accuracy"
    """Of the validation rows, after each epoch."""
    patience: int = Field(default=3, ge=1)
    """Epochs in a row without improvement after which training ends."""
    min_delta: float = Field(default=0.0, ge=0)
    """A smaller change is no improvement."""


class Train(Section):
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=1)
    """Rows of one batch over all workers; must be a multiple of `virtual_shards`."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are summed for one step of the optimizer."""
    virtual_shards: int = Field(default=4, ge=1)
    """A batch is always computed as this many pieces, whatever the number of workers."""
    reduce: Literal["virtual", "ddp"] = "virtual"
    """`ddp` is faster, and its result depends on the number of workers."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of autocast; weights stay float32, and float16 scales the loss."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then what is evaluated and kept."""
    early_stopping: EarlyStopping | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    loss: Reference = "emberline.models.losses:cross_entropy"
    augment: Reference | None = None
    checkpoint_every_s: float = Field(default=30.0, gt=0)
    snapshot_every: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Steps between copies of the state in shared memory; `auto` keeps their cost under 1 % of the time."""
    keep_checkpoints: int = Field(default=3, ge=2)
    max_restarts: int = Field(default=20, ge=0)
    threads: int = Field(default=1, ge=1)
    """Threads per worker; part of what makes results equal bit for bit."""

    @model_validator(mode="after")
    def _whole_shards(self) -> "Train":
        if self.batch_size % self.virtual_shards:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of virtual_shards {self.virtual_shards}")
        return self


class Prune(Section):
    stage: Literal["prune"]
    ratio: float = Field(gt=0, lt=1)
    """Fraction of the channels removed in each group."""
    round_to: int = Field(default=8, ge=1)
    """Widths are multiples of this: odd widths cost more time than they save."""
    ignored_layers: tuple[str, ...] = ()


class Finetune(Section):
    stage: Literal["finetune"]
    epochs: int = Field(ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)


class Quantize(Section):
    stage: Literal["quantize"]
    precision: Literal["int8"] = "int8"
    calibration_rows: int = Field(default=256, ge=1)


class Export(Section):
    stage: Literal["export"]
    backends: tuple[Literal["aoti", "onnx"], ...] = ("aoti",)
    max_batch: int = Field(default=64, ge=2)


Stage = Annotated[Prune | Finetune | Quantize | Export, Field(discriminator="stage")]


class Gates(Section):
    max_accuracy_drop: float | None = Field(default=None, ge=0, le=1)
    min_speedup: float | None = Field(default=None, gt=0)
    max_size_mb: float | None = Field(default=None, gt=0)
    on_slower: Literal["warn", "refuse"] = "warn"
    """What happens to a candidate measured slower than the baseline; `warn` keeps it and says so in every paper."""


class Variant(Section):
    stages: tuple[Stage, ...]
    gates: Gates = Gates()


class Compress(Section):
    baseline: Name = "fp32"
    """The artifact that the others are measured against."""
    artifacts: dict[Name, Variant]
    batch_sizes: tuple[int, ...] = (1, 32)
    """Batch sizes to be served: latency is measured and outputs are compared at each."""
    threads: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _baseline_is_there(self) -> "Compress":
        if self.baseline not in self.artifacts:
            raise ValueError(f"baseline {self.baseline!r} is none of the artifacts {sorted(self.artifacts)}")
        return self


class Archive(Section):
    model: Name
    """The model's name at the router: /predictions/{model}."""
    versions: dict[Name, Version]
    """Version of each artifact."""
    handler: str = "auto"
    """`auto`, `tensor`, `image`, or the path of the user's own handler file, from the recipe's folder."""
    licence: str = "unspecified"


class Serve(Section):
    workers: int = Field(default=2, ge=1)
    """Per version. Two keep serving while one is replaced; each costs its own copy of the model."""
    batch_size: int = Field(default=32, ge=1)
    batch_delay_ms: int = Field(default=1, ge=0)
    threads: int = Field(default=1, ge=1)
    response_timeout_s: int = Field(default=10, ge=1)
    queue_size: int = Field(default=1000, ge=1)


class Recipe(Section):
    run: Name
    seed: int = Field(default=0, ge=0, lt=2**63)
    model: Model
    data: Data
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the model's outputs."""
    train: Train = Train()
    compress: Compress | None = None
    archive: Archive | None = None
    serve: Serve = Serve()
    experiment: str | None = None
    """The Experiment file, from the recipe's folder."""

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))


def load_recipe(path: Path, settings: Iterable[str] = ()) -> Recipe:
    """Reads a recipe, with `key.path=value` settings laid over it (values are YAML, typed by the models).

    Raises:
        MissingFile, UnknownKey, InvalidSetting: with the file and key that is wrong.
    """
    if not path.is_file():
        raise MissingFile(path, "the recipe", hint="emberline ships recipes/digits.yaml")
    return parse_model(Recipe, overlay(read_yaml(path), settings), path)


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML mapping from a file, by `safe_load`."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the encoding"
        problem = getattr(error, "problem", None) or "cannot be read"
        raise InvalidFile(path, f"no YAML: {where}: {problem}", hint="plain YAML in UTF-8 is read") from error
    if not isinstance(raw, dict):
        got = "empty" if raw is None else f"a {type(raw).__name__}"
        raise InvalidFile(path, f"the file is {got}; a YAML mapping of keys to values is required")
    return raw


def overlay(raw: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Lays `a.b.0.c=value` settings over nested mappings and lists; returns a changed copy."""
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(raw))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise InvalidSetting("--set", "setting", setting, "key=value")
        *parents, last = key.split(".")
        node: Any = result
        for part in parents:
            node = node.setdefault(part, {}) if isinstance(node, dict) else _list_item(node, part, key)
        if isinstance(node, list):
            _list_item(node, last, key)
            node[int(last)] = _value(text, setting)
        elif isinstance(node, dict):
            node[last] = _value(text, setting)
        else:
            raise InvalidSetting("--set", key, node, "a mapping or list above the last key")
    return result


def _value(text: str, setting: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidSetting("--set", "value", setting, "YAML after the equals sign") from error


def parse_model(model: type[M], raw: Mapping[str, Any], place: Path) -> M:
    """Validates a mapping; the first thing wrong becomes one clear error that names file and key."""
    try:
        return TypeAdapter(model).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        if first["type"] == "extra_forbidden":
            raise UnknownKey(place, key, _known_keys(model, first["loc"][:-1])) from None
        raise _invalid(place, key, first) from None


def _invalid(place: Path, key: str, error: Mapping[str, Any]) -> InvalidSetting:
    """Pydantic's account of one wrong value, in this project's words."""
    kind, got, context = error["type"], error["input"], error.get("ctx", {})
    message = str(error["msg"]).removeprefix("Value error, ")
    if kind == "missing":
        return InvalidSetting(place, key, "absent", "a value for this key")
    if kind == "value_error" and isinstance(got, dict | list):
        return InvalidCombination(place, key, message)
    if kind == "string_pattern_mismatch":
        return InvalidSetting(place, key, got, _PATTERNS.get(context["pattern"], f"a match for {context['pattern']}"))
    if kind == "union_tag_invalid":
        field = str(context["discriminator"]).strip("'")
        return InvalidSetting(place, f"{key}.{field}", context["tag"], f"one of {context['expected_tags']}")
    return InvalidSetting(place, key, got, _required(kind, message, context))


def _required(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """What pydantic asks for, without its own words for containers and models."""
    if kind == "too_short":
        return f"at least {context['min_length']} of them"
    if kind == "too_long":
        return f"at most {context['max_length']} of them"
    if kind in {"model_type", "dict_type", "dataclass_type"}:
        return "a mapping of keys to values"
    if kind in {"tuple_type", "list_type"}:
        return "a list"
    return message.removeprefix("Input should be ").partition(", unable to parse")[0].removesuffix(" is required")


def _list_item(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    raise InvalidSetting(
        "--set", key, part, "an index that the list has" if isinstance(node, list) else "a key above it"
    )


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Keys of the model at a location: all keys of models that could stand there, found by name alone."""
    names: set[str] = set()
    pending: list[Any] = [model]
    seen: set[Any] = set()
    found: list[type[BaseModel]] = [model] if not location else []
    wanted = next((part for part in reversed(location) if isinstance(part, str)), None)
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for name, info in current.model_fields.items():
            for inner in _models_in(info.annotation):
                pending.append(inner)
                if name == wanted or inner.__name__.lower() == str(wanted).lower():
                    found.append(inner)
    for one in found or list(seen):
        names.update(one.model_fields)
    return tuple(sorted(names))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]
