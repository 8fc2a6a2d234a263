"""The recipe: one YAML file that says how a model is trained, compressed, archived and served.

Sections of all stages are typed here, without stage code: every verb reads the same file and uses its own section.
Models and data are named as `module:function`, of the user's own code (found beside the recipe file) or of emberline's.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from emberline.errors import InvalidFile, InvalidSetting, MissingFile
from emberline.misfit import key_of, told
from emberline.paper import digest_of

_REFERENCE, _NAME, _VERSION = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", r"^\d+(\.\d+)*$"
_PATTERNS = {
    _REFERENCE: "module:function",
    _NAME: "a name of lower-case letters, digits and dashes",
    _VERSION: "a version such as 1.0",
}
_SET_HINT = "such as --set train.epochs=3 or --set compress.artifacts.int8.stages.0.ratio=0.25"
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
    sample: float | None = Field(default=None, gt=0, le=1)
    """Fraction of the training rows to train on, always the same ones: for a quick look."""
    threads: int = Field(default=2, ge=0)
    """Threads of each worker that read ahead and decode; 0 reads rows when they are asked for."""
    ahead: int = Field(default=4, ge=1)
    """Pieces of a batch that are kept ready, one virtual shard's rows each."""


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
    """Of a text: tokens the model takes; shorter texts are padded with 0, longer ones cut."""
    tokenizer: dict[str, Any] | str | None = None
    """Of a text: `bytes` (ids 1 to 256), `words` (hashed), or a `tokenizer.json` (here its content)."""
    vocabulary: int | None = Field(default=None, ge=3)
    """Of a text in `words`: how many ids there are, padding included."""

    @model_validator(mode="after")
    def _settings_fit_the_kind(self) -> "Input":
        given = {key for key in ("length", "tokenizer", "vocabulary") if getattr(self, key) is not None}
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


class Optimizer(Section):
    name: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    at_batch_size: int | None = Field(default=None, ge=1)
    """Rows of the step that learning_rate is meant for: `train.batch_size: auto` scales the rate from there."""


class EarlyStopping(Section):
    """Ends training when validation has not improved for a while, and goes back to the best weights."""

    metric: Literal["accuracy", "ndcg", "loss"] = "accuracy"
    """Of the validation rows, after each epoch; `ndcg` of a ranking."""
    patience: int | None = Field(default=3, ge=1)
    """Epochs in a row without improvement after which training ends; null never ends it, and keeps the best alone."""
    min_delta: float = Field(default=0.0, ge=0)
    """A smaller change is no improvement."""


class Teaching(Section):
    """How much a teacher's answers count beside the labels."""

    temperature: float = Field(default=4.0, gt=0)
    soft: float = Field(default=0.7, ge=0)
    """Weight of the divergence from the teacher's softened answers."""
    hard: float = Field(default=0.3, ge=0)
    """Weight of the recipe's own loss on the labels."""


class Distillation(Teaching):
    """Training from the start by what a teacher answers, beside what the labels say."""

    teacher: str | None = None
    """Folder of the artifact that teaches, from the working directory; it answers at each step."""
    recorded: str | None = None
    """Parquet file written by `emberline record`, in place of a teacher that runs beside the student."""

    @model_validator(mode="after")
    def _one_teacher(self) -> "Distillation":
        if (self.teacher is None) == (self.recorded is None):
            raise ValueError("name one teacher: either teacher, a folder, or recorded, a file of its answers")
        if self.soft == 0:
            raise ValueError("soft is 0, so the teacher has no say; leave distill out")
        return self


class Train(Section):
    task: Literal["classification", "ranking"] = "classification"
    """`ranking` learns the order of the rows of one group, which the data's `groups` tell; the score of a row is the
    model's last output."""
    top: int = Field(default=10, ge=1)
    """Of a ranking: how many of the first items count in its metric, NDCG."""
    epochs: int = Field(default=10, ge=1)
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 64
    """Rows of one batch over all workers, of a ranking groups of rows; must be a multiple of `virtual_shards`. `auto`
    is the largest that fits into memory, found once and written down in the run."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are summed for one step of the optimizer."""
    virtual_shards: int = Field(default=4, ge=1)
    """A batch is always computed as this many pieces, whatever the number of workers."""
    strategy: Literal["replicate", "fsdp2"] = "replicate"
    """`fsdp2` divides weights and optimizer among the workers, for models that one device cannot hold."""
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
    """Of a ranking, if not given, `emberline.models.losses:ndcg`."""
    distill: Distillation | None = None
    augment: Reference | None = None
    track: tuple[Literal["tensorboard", "mlflow"], ...] = ()
    """Where the run's numbers are sent besides its log; each needs the extra of its name."""
    checkpoint_every_s: float = Field(default=30.0, gt=0)
    snapshot_every: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Steps between copies of the state in shared memory; `auto` keeps their cost under 1 % of the time."""
    keep_checkpoints: int = Field(default=3, ge=2)
    checkpoints: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9+.-]*://.+")
    """URL of a folder in an object store (`s3://bucket/runs`), where each run has a folder; else the run's own."""
    max_restarts: int = Field(default=20, ge=0)
    hang_after_s: Annotated[float, Field(gt=0)] | Literal["auto", "never"] = "auto"
    """A worker without progress for this long, or for a few times the median step if that is longer, is replaced."""
    threads: int = Field(default=1, ge=1)
    """Threads per worker; part of what makes results equal bit for bit."""

    def checkpoints_of(self, run: str) -> str | None:
        """Where a run's checkpoints lie, if not in its own folder."""
        return None if self.checkpoints is None else f"{self.checkpoints.rstrip('/')}/{run}"

    @property
    def rows_per_batch(self) -> int:
        """The batch size, once it is known."""
        if self.batch_size == "auto":
            raise InvalidSetting(
                "train", "batch_size", "auto", "a number",
                hint="training chooses it: take the number from the run's manifest, or train first",
            )  # fmt: skip
        return self.batch_size

    @model_validator(mode="before")
    @classmethod
    def _losses_of_tasks(cls, given: Any) -> Any:
        """A ranking's own loss, where none is named."""
        if isinstance(given, dict) and given.get("task") == "ranking" and "loss" not in given:
            return {**given, "loss": "emberline.models.losses:ndcg"}
        return given

    @model_validator(mode="after")
    def _whole_shards(self) -> "Train":
        uneven = self.batch_size != "auto" and self.batch_size % self.virtual_shards
        if uneven and self.strategy == "replicate":
            raise ValueError(f"batch_size {self.batch_size} is no multiple of virtual_shards {self.virtual_shards}")
        if (self.batch_size == "auto") != (self.optimizer.at_batch_size is not None):
            raise ValueError(
                "batch_size: auto and optimizer.at_batch_size go together: the rate is scaled from the one to the other"
            )
        return self

    @model_validator(mode="after")
    def _metric_of_the_task(self) -> "Train":
        wrong = {"classification": "ndcg", "ranking": "accuracy"}[self.task]
        if self.early_stopping is not None and self.early_stopping.metric == wrong:
            raise ValueError(f"early_stopping.metric {wrong} is none of task {self.task}; set it")
        if self.task == "classification" and "top" in self.model_fields_set:
            raise ValueError("top does nothing with task classification; leave it out")
        if self.distill is not None and self.distill.recorded is not None and self.augment is not None:
            raise ValueError("recorded answers are to rows as they are; use a live teacher, or leave augment out")
        return self

    @model_validator(mode="after")
    def _what_fsdp_gives_up(self) -> "Train":
        unused = self.model_fields_set & {"reduce", "snapshot_every", "virtual_shards"}
        if self.strategy == "replicate":
            return self
        if unused:
            raise ValueError(f"{', '.join(sorted(unused))} does nothing with strategy fsdp2; leave it out")
        if self.ema is not None or self.precision == "float16" or self.checkpoints is not None:
            raise ValueError("ema, precision float16 and checkpoints in an object store cannot go with strategy fsdp2")
        if self.batch_size == "auto":
            raise ValueError("batch_size: auto tries whole models, so it cannot go with strategy fsdp2; set a number")
        return self


class Distill(Teaching):
    """A student learns what a teacher answers, beside what the labels say."""

    stage: Literal["distill"]
    student: Model | None = None
    """The net that learns, made anew; without it the net as the stages before left it."""
    inherit: dict[str, str] = {}
    """Parts of the student that start with the weights of the trained net's: its own, and the one it takes after. A
    factorised embedding takes after a whole one."""
    teacher: str | None = None
    """Folder of the artifact that teaches, from the working directory; without it the trained one."""
    recorded: str | None = None
    """Parquet file written by `emberline record`, in place of a teacher that runs beside the student."""
    epochs: int = Field(ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    features: dict[str, str] = {}
    """Layers whose outputs are matched as well: the teacher's, and the student's that shall resemble it."""
    feature_weight: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _something_is_taught(self) -> "Distill":
        if self.soft == 0 and not self.features:
            raise ValueError("soft is 0 and there are no features, so the teacher has no say; use the finetune stage")
        if self.recorded and self.features:
            raise ValueError("recorded answers hold no features; leave features or recorded out")
        if self.recorded and self.teacher:
            raise ValueError("recorded answers stand in for a teacher; leave teacher or recorded out")
        if self.inherit and self.student is None:
            raise ValueError("inherit does nothing without a student, which has all weights already; leave it out")
        return self


class Prune(Section):
    stage: Literal["prune"]
    method: Literal["structured", "magnitude", "movement", "2:4"] = "structured"
    """`structured` takes whole channels away; the others set single weights to zero, which makes no CPU faster."""
    ratio: float = Field(default=0.5, gt=0, lt=1)
    """Fraction of the channels removed in each group, or of all weights set to zero; `2:4` is always one half."""
    round_to: int | Literal["measured"] = 8
    """Widths are multiples of this: odd widths cost more than they save. `measured` times a few and takes the best."""
    ignored_layers: tuple[str, ...] = ()
    """Layers that stay as they are; `*` stands for any part of a name."""
    epochs: int = Field(default=2, ge=1)
    """Of training while weights are set to zero by their movement; `movement` only."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of that training."""

    @model_validator(mode="after")
    def _settings_fit_the_method(self) -> "Prune":
        if isinstance(self.round_to, int) and self.round_to < 1:
            raise ValueError(f"round_to is {self.round_to}; 1 or more is required")
        of_others = {"structured": {"epochs", "learning_rate"}, "movement": {"round_to"}}
        unused = self.model_fields_set & of_others.get(self.method, {"round_to", "epochs", "learning_rate"})
        if self.method == "2:4" and "ratio" in self.model_fields_set and self.ratio != 0.5:  # noqa: PLR2004 - two of four
            unused = unused | {"ratio"}
        if unused:
            raise ValueError(f"{', '.join(sorted(unused))} does nothing with method {self.method}; leave it out")
        return self


class Finetune(Section):
    stage: Literal["finetune"]
    epochs: int = Field(ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)


class AwareTraining(Section):
    """Quantization-aware training: the fallback where quantization after training loses too much."""

    above: float = Field(default=0.0, ge=-1, le=1)
    """Drop in accuracy over the validation rows above which it is tried; -1 tries it always."""
    epochs: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)


class Quantize(Section):
    stage: Literal["quantize"]
    precision: Literal["int8", "int8_dynamic", "int8_embeddings", "bf16", "fp16", "fp8"] = "int8"
    """`int8` has fixed scales from calibration rows, `int8_dynamic` measures activations row by row as it runs; `fp8`
    does so too, on GPUs alone."""
    calibration_rows: int = Field(default=256, ge=1)
    embeddings: Literal["int8", "float"] = "int8"
    """Tables of embeddings, which no other int8 kernel reaches: stored as int8, a scale a row."""
    skip_layers: tuple[str, ...] = ()
    """Layers that stay in floating point; `*` stands for any part of a name."""
    skip_sensitive: int = Field(default=0, ge=0)
    """As many more layers stay in floating point: those whose int8 alone changes the outputs most."""
    smooth: float | None = Field(default=None, ge=0, le=1)
    """SmoothQuant's alpha: how much of the activations' outliers moves into the weights; absent leaves them."""
    aware_training: AwareTraining | None = None

    @model_validator(mode="after")
    def _settings_fit_the_precision(self) -> "Quantize":
        only_int8 = {"skip_layers", "skip_sensitive", "calibration_rows"}
        unused = {
            "int8": set(),
            "int8_dynamic": {"aware_training", "calibration_rows"},
            "fp8": {"aware_training", "calibration_rows", "smooth", "skip_sensitive"},
            "int8_embeddings": {*only_int8, "aware_training", "smooth"},
        }.get(self.precision, {*only_int8, "aware_training", "smooth", "embeddings"})
        given = self.model_fields_set & unused
        if self.precision == "int8_dynamic" and (self.skip_sensitive or self.smooth is not None):
            given -= {"calibration_rows"}  # what finds sensitive layers and outliers looks at those rows
        if given:
            raise ValueError(f"{', '.join(sorted(given))} does nothing with precision {self.precision}; leave it out")
        if self.precision == "int8_embeddings" and self.embeddings == "float":
            raise ValueError("precision int8_embeddings with embeddings: float leaves nothing to quantize")
        return self


ExportBackend = Literal["aoti", "aoti-native", "aoti-cuda", "onnx", "openvino"]


class Export(Section):
    stage: Literal["export"]
    backends: tuple[ExportBackend, ...] | Literal["installed"] = "installed"
    """What packages are built for; the fastest that passes the gates leads. `installed` is all there are here."""
    max_batch: int = Field(default=64, ge=2)


Stage = Annotated[Distill | Prune | Finetune | Quantize | Export, Field(discriminator="stage")]


class Gates(Section):
    max_accuracy_drop: float | None = Field(default=None, ge=0, le=1)
    min_speedup: float | None = Field(default=None, gt=0)
    max_size_mb: float | None = Field(default=None, gt=0)
    max_memory_mb: float | None = Field(default=None, gt=0)
    """Peak of a process that loads the package and answers the largest batch size, PyTorch itself included."""
    on_slower: Literal["warn", "refuse"] = "warn"
    """What happens to a candidate measured slower than the baseline; `warn` keeps it and says so in every paper."""


class Variant(Section):
    stages: tuple[Stage, ...]
    gates: Gates = Gates()
    fallbacks: tuple[tuple[Stage, ...], ...] = ()
    """Other stages to try, in this order, when a gate or a stage fails; what they share with those before is reused."""


class Search(Section):
    """What `emberline compress --search` may change of one artifact, and how much work it may cost."""

    artifact: Name | None = None
    """The artifact whose stages are sought, under its own gates; where there is only one it need not be named."""
    arguments: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    """Choices for arguments of the model's factory, its width or depth; another net is the trained one's student."""
    prune: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1)] = (0.0, 0.25, 0.5)
    """Ratios of channels to remove."""
    round_to: int = Field(default=8, ge=1)
    precisions: Annotated[tuple[Literal["fp32", "bf16", "fp16", "int8", "int8_dynamic"], ...], Field(min_length=1)] = (
        "fp32",
        "int8",
    )
    distill: Annotated[tuple[bool, ...], Field(min_length=1)] = (False, True)
    """Whether the trained net teaches a pruned one as well; a student is always taught by it."""
    epochs: int = Field(default=10, ge=1)
    """Of a student's training."""
    repair_epochs: int = Field(default=4, ge=1)
    """Of training after pruning."""
    learning_rate: float = Field(default=1e-3, gt=0)
    trials: int = Field(default=24, ge=1)
    """Nets that are looked at cheaply: trained for `proxy_epochs`, neither compiled nor timed."""
    proxy_epochs: int = Field(default=1, ge=1)
    evaluations: int = Field(default=8, ge=1)
    """Nets that are trained, compiled, timed and held to the gates in full."""


class Compress(Section):
    baseline: Name = "fp32"
    """The artifact that the others are measured against."""
    artifacts: dict[Name, Variant]
    batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 32)
    """Batch sizes to be served: latency is measured and outputs are compared at each."""
    threads: int = Field(default=1, ge=1)
    int8_for: Literal["this-cpu", "any-cpu"] = "this-cpu"
    """`any-cpu` calibrates to 7 bits where this CPU has VNNI too, so that CPUs without it can load the packages."""
    search: Search | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    """What packages are made for and measured on: `cuda` compiles for the compute capability of this GPU alone."""

    @model_validator(mode="after")
    def _stages_fit_the_device(self) -> "Compress":
        for name, variant in self.artifacts.items():
            for stage in (*variant.stages, *(stage for stages in variant.fallbacks for stage in stages)):
                wrong = _unfit_for(self.device, stage)
                if wrong:
                    raise ValueError(f"artifacts.{name}: {wrong}")
        return self

    @model_validator(mode="after")
    def _baseline_is_there(self) -> "Compress":
        if self.baseline not in self.artifacts:
            raise ValueError(f"baseline {self.baseline!r} is none of the artifacts {sorted(self.artifacts)}")
        if self.artifacts[self.baseline].fallbacks:
            raise ValueError(f"baseline {self.baseline!r} has fallbacks; what the others are held against is one thing")
        return self

    @model_validator(mode="after")
    def _searched_artifact_is_there(self) -> "Compress":
        if self.search is not None:
            others = sorted(set(self.artifacts) - {self.baseline})
            if self.search.artifact is None and len(others) != 1:
                raise ValueError(f"search.artifact is absent and there are {others}; name the one to be sought")
            if self.search.artifact is not None and self.search.artifact not in others:
                raise ValueError(f"search.artifact {self.search.artifact!r} is none of {others}")
        return self

    @property
    def sought(self) -> str:
        """The artifact whose stages a search walks."""
        given = self.search.artifact if self.search else None
        return given or next(name for name in self.artifacts if name != self.baseline)


def _unfit_for(device: str, stage: Stage) -> str | None:
    """Why a stage cannot be for a device, or None."""
    if isinstance(stage, Quantize) and device == "cuda" and stage.precision in ("int8", "int8_embeddings"):
        return f"precision {stage.precision} is for the CPU alone; device cuda takes int8_dynamic, fp8, bf16 and fp16"
    if isinstance(stage, Quantize) and device == "cpu" and stage.precision == "fp8":
        return "precision fp8 is for GPUs alone; set device: cuda"
    if isinstance(stage, Export) and stage.backends != "installed":
        wrong = [one for one in stage.backends if (one == "aoti-cuda") != (device == "cuda")]
        if wrong:
            return f"backend {wrong[0]} is not for device {device}"
    return None


class Pass(Section):
    """One model of a cascade, and which rows go on to the next; the last one has no rule.

    `tuned` leaves a rule to `emberline compress`, which finds the cheapest on validation rows.
    """

    artifact: Name
    keep: Annotated[int, Field(ge=1)] | Literal["tuned"] | None = None
    """Of a ranking's items, this many of the best go on."""
    confidence: Annotated[float, Field(gt=0, le=1)] | Literal["tuned"] | None = None
    """A row whose likeliest class is less probable than this goes on."""

    @property
    def is_tuned(self) -> bool:
        return "tuned" in (self.keep, self.confidence)


class Cascade(Section):
    """Artifacts of one recipe served as one version, the lightest first."""

    version: Version
    passes: tuple[Pass, ...] = Field(min_length=2)
    max_drop: Fraction | None = None
    """Accuracy that the cascade may lose on validation rows against its last pass alone; of rankings, the fraction of
    its NDCG."""
    top: int = Field(default=25, ge=1)
    """Of rankings: how many of the first items are shown, and so count in NDCG."""

    @model_validator(mode="after")
    def _rules_lead_on(self) -> "Cascade":
        *first, last = self.passes
        if last.keep is not None or last.confidence is not None:
            raise ValueError(f"{last.artifact} is the last pass; keep and confidence say who goes on to another")
        for one in first:
            if one.keep is None and one.confidence is None:
                raise ValueError(f"{one.artifact} needs keep or confidence, which say who goes on")
        kept = [one.keep for one in first if isinstance(one.keep, int)]
        if kept != sorted(kept, reverse=True):
            raise ValueError(f"keep goes up from pass to pass: {kept}")
        if any(one.is_tuned for one in first) and self.max_drop is None:
            raise ValueError("max_drop is required where a rule is tuned: the cheapest rule of all sends nothing on")
        return self


class Archive(Section):
    model: Name
    """The model's name at the router: /predictions/{model}."""
    versions: dict[Name, Version]
    """Version of each artifact."""
    cascades: dict[Name, Cascade] = {}
    """Further versions, each made of several artifacts."""
    handler: str = "auto"
    """`auto`, `tensor`, `image`, `text`, `ranking`, or the path of the user's own file, from the recipe's folder."""
    licence: str = "unspecified"


class Tuned(Section):
    """What `emberline tune` found best for one artifact, on the machine where it ran."""

    workers: int = Field(ge=1)
    threads: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    batch_delay_ms: int = Field(ge=0)


class Serve(Section):
    workers: int = Field(default=2, ge=1)
    """Per version. Two keep serving while one is replaced; each costs its own copy of the model."""
    batch_size: int = Field(default=32, ge=1)
    batch_delay_ms: int = Field(default=0, ge=0)
    """Longest wait for a batch to fill; with 0 a worker takes what waits, which fills batches when there is load."""
    take_waiting: bool = True
    """With `batch_delay_ms: 0`, take all requests that wait; False is TorchServe's own rule, at most two of them."""
    tuned: bool = True
    """Serve an artifact that `emberline tune` looked at with the workers, batches and delay that it found best."""
    threads: int = Field(default=1, ge=1)
    devices: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """GPUs that each version's workers take in turns, by number; none: the CPU. One worker each, without `workers`."""
    device_memory_share: float | None = Field(default=None, gt=0, le=1)
    """Fraction of its GPU's memory that a worker may take; absent, as much as there is."""
    response_timeout_s: int = Field(default=4, ge=1)
    """A worker that is at one batch for longer is replaced; under the router's 10 s, which cover a repetition too."""
    queue_size: int = Field(default=1000, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _one_process_a_gpu(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("devices") and "workers" not in given:
            devices = given["devices"]
            return {**given, "workers": len(devices) if isinstance(devices, list | tuple) else 1}
        return given

    @model_validator(mode="after")
    def _devices_have_room(self) -> "Serve":
        if len(set(self.devices)) < len(self.devices):
            raise ValueError(f"devices names a GPU twice: {list(self.devices)}; several workers share one by workers")
        if self.device_memory_share is not None:
            if not self.devices:
                raise ValueError("device_memory_share does nothing without devices; leave it out")
            each = -(-self.workers // len(self.devices))
            if each * self.device_memory_share > 1:
                raise ValueError(f"{each} workers, each with {self.device_memory_share:g} of it, do not fit one GPU")
        return self


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
    if not path.exists():
        raise MissingFile(path, "the recipe", hint="emberline ships recipes/digits.yaml")
    return _with_tokenizers(parse_model(Recipe, lay_over(path, tuple(settings)), path), path)


def lay_over(path: Path, settings: tuple[str, ...]) -> dict[str, Any]:
    """The recipe's mapping under settings; where the model wants a text it is the text as written: `1.2`, a version."""
    raw = overlay(read_yaml(path), settings)
    if not settings:
        return raw
    try:
        Recipe.model_validate(raw)
    except ValidationError as error:  # whatever else is wrong is told when the mapping is parsed
        written = {key: text for key, _, text in (one.partition("=") for one in settings)}
        texts = {key_of(raw, one) for one in error.errors() if one["type"] == "string_type"} & written.keys()
        return overlay(raw, [f"{key}={json.dumps(written[key])}" for key in texts])
    return raw


def _with_tokenizers(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with the content of each `tokenizer.json` in place of its path: it travels with the artifact."""
    inputs = []
    for number, spec in enumerate(recipe.preprocessing.inputs):
        if not isinstance(spec.tokenizer, str) or spec.tokenizer in ("bytes", "words"):
            inputs.append(spec)
            continue
        file = path.parent / spec.tokenizer
        if not file.is_file():
            key = f"preprocessing.inputs.{number}.tokenizer"
            hint = f"{file} is not there; the path counts from the recipe's folder"
            required = "bytes, words, or a tokenizer.json beside the recipe,"
            raise InvalidSetting(path, key, spec.tokenizer, required, hint=hint)
        try:
            content = json.loads(file.read_bytes())
        except ValueError as error:
            raise InvalidFile(file, "no JSON", hint="the file that the library tokenizers saves is read") from error
        inputs.append(spec.model_copy(update={"tokenizer": content}))
    preprocessing = recipe.preprocessing.model_copy(update={"inputs": tuple(inputs)})
    return recipe.model_copy(update={"preprocessing": preprocessing})


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML mapping from a file, by `safe_load`.

    Raises:
        InvalidFile: it is a folder, no UTF-8, no plain YAML, no mapping, or has a key twice.
    """
    if path.is_dir():
        raise InvalidFile(path, "is a folder; a YAML file is required", hint=f"name a file in it: {path}/….yaml")
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_doubles(yaml.compose(text, Loader=yaml.SafeLoader), "", path, set())
        raw = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise InvalidFile(path, f"byte {error.start} is no UTF-8", hint="save the file in UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidFile(path, f"no YAML: {where}{error.problem}", hint="plain YAML in UTF-8 is read") from error
    except yaml.YAMLError as error:  # a character that YAML does not allow; its own text runs over several lines
        raise InvalidFile(path, f"no YAML: {str(error).splitlines()[0]}", hint="plain YAML in UTF-8 is read") from error
    if not isinstance(raw, dict):
        got = "empty" if raw is None else f"a {type(raw).__name__}"
        raise InvalidFile(path, f"the file is {got}; a YAML mapping of keys to values is required")
    return raw


def _refuse_doubles(node: yaml.Node | None, above: str, path: Path, seen: set[int]) -> None:
    """Refuses a key that a mapping has twice, of which `safe_load` would take the last in silence."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _refuse_doubles(item, f"{above}{number}.", path, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and name in lines:
                fact = f"line {line}: {above}{name} is there a second time, after line {lines[name]}"
                raise InvalidFile(path, fact, hint="keep the one that is meant")
            lines[name] = line
            _refuse_doubles(value, f"{above}{name}.", path, seen)


def overlay(raw: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Lays `a.b.0.c=value` settings over nested mappings and lists; returns a changed copy.

    Raises:
        InvalidSetting: a setting has no equals sign, no YAML after it, or leads nowhere.
    """
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(raw))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise InvalidSetting("--set", "setting", setting, "key=value", hint=_SET_HINT)
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
            raise InvalidSetting("--set", key, node, "a mapping or list above the last key", hint=_SET_HINT)
    return result


def _value(text: str, setting: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        hint = "quote what YAML would read otherwise: --set 'key=\"a: b\"'"
        raise InvalidSetting("--set", "value", setting, "YAML after the equals sign", hint=hint) from error


def parse_model(model: type[M], raw: Mapping[str, Any], place: Path) -> M:
    """Validates a mapping; the first thing wrong becomes one clear error that names file and key."""
    try:
        return TypeAdapter(model).validate_python(raw)
    except ValidationError as error:
        raise told(error, model, raw, place, _PATTERNS) from None


def _list_item(node: Any, part: str, key: str) -> Any:
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    if isinstance(node, list):
        hint = f"the list has {len(node)} items, counted from 0"
        raise InvalidSetting("--set", key, part, "an index that the list has", hint=hint)
    raise InvalidSetting("--set", key, part, "a key above it", hint=_SET_HINT)
