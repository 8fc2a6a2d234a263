"""The stages of compression, each with its own settings."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from emberline.recipe.fields import Reference, Section
from emberline.recipe.model import Model
from emberline.recipe.teaching import Teaching


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
    augment: Reference | None = None
    """In place of `train.augment`. The teacher sees what the student sees, so rows may come to say something else than
    their labels do; `hard: 0` then."""
    features: dict[str, str] = {}
    """Layers whose outputs are matched as well: the teacher's, and the student's that shall resemble it."""
    feature_weight: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _something_is_taught(self) -> "Distill":
        if self.soft == 0 and not self.features:
            raise ValueError("soft is 0 and there are no features, so the teacher has no say; use the finetune stage")
        if self.recorded and self.features:
            raise ValueError("recorded answers hold no features; leave features or recorded out")
        if self.recorded and self.augment:
            raise ValueError("recorded answers are to rows as they are; leave augment or recorded out")
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


QuantizedPrecision = Literal["int8", "int8_dynamic", "int8_embeddings", "bf16", "fp16", "fp8"]


class Quantize(Section):
    stage: Literal["quantize"]
    precision: QuantizedPrecision = "int8"
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
        given = self.model_fields_set & self._unused_in(self.precision)
        if given:
            raise ValueError(f"{', '.join(sorted(given))} does nothing with precision {self.precision}; leave it out")
        if self.precision == "int8_embeddings" and self.embeddings == "float":
            raise ValueError("precision int8_embeddings with embeddings: float leaves nothing to quantize")
        return self

    def in_precision(self, precision: QuantizedPrecision) -> "Quantize":
        """The same settings in another precision, less those that do nothing in it."""
        kept = self.model_fields_set - self._unused_in(precision) - {"stage", "precision"}
        return Quantize(stage="quantize", precision=precision, **{name: getattr(self, name) for name in kept})

    def _unused_in(self, precision: QuantizedPrecision) -> set[str]:
        """Settings that do nothing in a precision."""
        only_int8 = {"skip_layers", "skip_sensitive", "calibration_rows"}
        # what finds sensitive layers and outliers looks at those rows
        rows = set() if self.skip_sensitive or self.smooth is not None else {"calibration_rows"}
        known: dict[QuantizedPrecision, set[str]] = {
            "int8": set(),
            "int8_dynamic": {"aware_training", *rows},
            "fp8": {"aware_training", "calibration_rows", "smooth", "skip_sensitive"},
            "int8_embeddings": {*only_int8, "aware_training", "smooth"},
        }
        return known.get(precision, {*only_int8, "aware_training", "smooth", "embeddings"})


ExportBackend = Literal["aoti", "aoti-native", "aoti-cuda", "onnx", "openvino"]


class Export(Section):
    stage: Literal["export"]
    backends: tuple[ExportBackend, ...] | Literal["installed"] = "installed"
    """What packages are built for; the fastest that passes the gates leads. `installed` is all there are here."""
    max_batch: int = Field(default=64, ge=2)


Stage = Annotated[Distill | Prune | Finetune | Quantize | Export, Field(discriminator="stage")]
