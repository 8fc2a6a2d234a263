"""The artifact: what is kept of a model and handed on. No optimizer state, no pickles.

A folder `runs/<run>/artifacts/<name>/` with a manifest, `artifact.json` (this module's `Artifact`), the weights as
safetensors, the exported packages, and a probe. The model is its factory and arguments, the structural edits that
pruning made, and the weights: `emberline.models.build` replays them in any process.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from emberline.errors import CorruptPaper
from emberline.paper import Frozen, Manifest, verify_paper
from emberline.recipe import Model, Preprocessing, Task, Tuned

DESCRIPTION = "artifact.json"
PROBE = "probe.json"

Backend = Literal["aoti", "aoti-cuda", "onnx", "openvino", "exported"]
Precision = Literal["fp32", "bf16", "fp16", "int8", "fp8"]


class ChannelEdit(Frozen):
    """One step of structural pruning, as torch-pruning records it: channels removed from a layer and all it couples to.

    Attributes:
        layer: path of the layer the removal started from.
        out_channels: whether its outputs (True) or its inputs were removed.
        removed: indices of the channels removed, as numbered just before this step.
    """

    layer: str
    out_channels: bool
    removed: tuple[int, ...]


class Tokens(Frozen):
    """How many tokens a batch of texts may have, padding included: any number from `least` to `most`."""

    least: Annotated[int, Field(ge=1)]
    most: Annotated[int, Field(ge=1)]


class Package(Frozen):
    """One exported program; the list of them is the chain that a loader falls back along.

    Attributes:
        needs: CPU flags as `/proc/cpuinfo` names them; a machine without one of them must not load it. Of `aoti-cuda`
            the compute capability, as `sm_90`.
        torch: version it was exported with; `aoti` packages load with the same minor version only.
        march: what it was compiled for (`native` for the CPU it was made on), or the runtime's name and version.
        int8_kernels: quantized kernels counted in the package; 0 for floating point.
        tokens: inputs of text whose number of tokens is free, by name; others come padded to their `length`.
    """

    file: str
    backend: Backend
    precision: Precision
    max_batch: Annotated[int, Field(ge=1)]
    needs: tuple[str, ...] = ()
    torch: str = ""
    march: str = ""
    int8_kernels: int = 0
    tokens: dict[str, Tokens] = {}


class Latency(Frozen):
    """Milliseconds of one batch, median over rounds interleaved with the baseline's."""

    batch: int
    wall_ms: float
    cpu_ms: float
    spread_ms: float


class PackageMeasurement(Frozen):
    """What was measured of one package, in rounds interleaved with all others of the recipe.

    Attributes:
        memory_mb: peak of a process that loads it and answers the largest batch size, PyTorch itself included.
        chosen: whether it leads the chain.
        verdict: of the accuracy gate; "-" where there is none.
    """

    file: str
    backend: Backend
    precision: str
    accuracy: float
    accuracy_drop: float
    latencies: tuple[Latency, ...]
    size_bytes: int
    memory_mb: float | None = None
    verdict: str = "-"
    chosen: bool = False


class Measurement(Frozen):
    """What was measured of an artifact, on the machine named.

    Attributes:
        rows: validation rows behind `accuracy`.
        speedup: baseline's wall time over this artifact's, at the first batch size to be served.
        memory_mb: as in `PackageMeasurement`, of the package that was chosen.
        packages: every package that was built, those not chosen included.
        left_out: why a backend has no package here, by its name in the recipe.
    """

    accuracy: float
    rows: int
    latencies: tuple[Latency, ...] = ()
    size_bytes: int = 0
    speedup: float | None = None
    accuracy_drop: float | None = None
    machine: str = ""
    warnings: tuple[str, ...] = ()
    memory_mb: float | None = None
    packages: tuple[PackageMeasurement, ...] = ()
    left_out: dict[str, str] = {}


class Artifact(Frozen):
    """`artifact.json`.

    Attributes:
        weights: safetensors file of the module's state, or None where only packages are kept.
        packages: the fallback chain, the preferred one first.
        labels: names of the classes in the order of the outputs.
        task: what it was trained for; it decides what its outputs mean.
        stages: what was done, in order, each stage's settings with what it reports.
        serving: how it is served best, where `emberline tune` has measured that.
    """

    model: Model
    edits: tuple[ChannelEdit, ...] = ()
    weights: str | None = None
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    task: Task = "classification"
    packages: tuple[Package, ...] = ()
    measurement: Measurement | None = None
    stages: tuple[dict[str, Any], ...] = ()
    serving: Tuned | None = None


class Probe(Frozen):
    """An input as a client would send it, and what the reference model answers.

    Attributes:
        instance: value of each input, by name, JSON ready (images as base64).
        expected: the model's raw first output for that one row.
        more_expected: its further outputs, flattened, where it has several; each with a tolerance of its own.
        tolerance: largest absolute difference that still counts as the same answer.
        answer: what a handler answers, where that is not the outputs' own numbers: `detections`, `shares` of a mask, or
            whatever a user's handler says; an empty object stands for any answer.
    """

    instance: dict[str, Any]
    expected: tuple[float, ...]
    tolerance: float
    more_expected: tuple[tuple[float, ...], ...] = ()
    more_tolerance: tuple[float, ...] = ()
    answer: Any = None


def read_artifact(folder: Path) -> tuple[Manifest, Artifact]:
    """Verifies the paper and parses its description.

    Raises:
        CorruptPaper, MissingFile, NewerSchema: the folder cannot be trusted.
    """
    manifest = verify_paper(folder, "artifact")
    path = folder / DESCRIPTION
    try:
        return manifest, TypeAdapter(Artifact).validate_json(path.read_bytes())
    except ValidationError as error:
        raise CorruptPaper(path, "no artifact description", "one that can be read") from error


def to_json(value: Frozen) -> bytes:
    return orjson.dumps(value.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
