"""The space of a search: nets to be looked at, candidates to be evaluated, and the stages that make each. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from emberline.recipe import Distill, Finetune, Model, Prune, Quantize, Search, Stage, Variant

SearchedPrecision = Literal["fp32", "bf16", "fp16", "int8", "int8_dynamic"]


@dataclass(frozen=True)
class Net:
    """One net of floats.

    Attributes:
        arguments: of the model's factory, those that the search chose and that differ from the trained net's.
        prune: ratio of channels removed; 0 leaves the net whole.
        distill: whether the trained net teaches while pruning is repaired.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    prune: float = 0.0
    distill: bool = False

    @property
    def key(self) -> str:
        """What tells it from others, in words: `width=32 depth=2 prune=0.5 distilled`."""
        parts = [f"{name}={value}" for name, value in sorted(self.arguments.items())]
        parts += [f"prune={self.prune:g}"] if self.prune else []
        return " ".join([*parts, *(["distilled"] if self.distill else [])]) or "as trained"


@dataclass(frozen=True)
class Candidate:
    """A net in one precision."""

    net: Net
    precision: SearchedPrecision

    @property
    def key(self) -> str:
        return f"{self.net.key}, {self.precision}"


def net_of(chosen: Mapping[str, Any], search: Search, trained: Mapping[str, Any]) -> Net:
    """The net that choices mean, in one form only: what changes nothing is left out of it.

    Args:
        chosen: an index into the search's choices, by name: arguments under their own, `prune` and `distill`.
        trained: the trained net's arguments, defaults of its factory included.
    """
    picked = {name: values[chosen[f"argument {name}"]] for name, values in search.arguments.items()}
    ratio = search.prune[chosen["prune"]]
    return Net(
        arguments={name: value for name, value in picked.items() if name not in trained or trained[name] != value},
        prune=ratio,
        distill=bool(ratio) and search.distill[chosen["distill"]],
    )


def sizes_of(search: Search) -> dict[str, int]:
    """How many choices each name has."""
    arguments = {f"argument {name}": len(values) for name, values in search.arguments.items()}
    return {**arguments, "prune": len(search.prune), "distill": len(search.distill)}


def stages_of(
    candidate: Candidate, search: Search, model: Model, like: Variant, *, quick: bool = False
) -> tuple[Stage, ...]:
    """The stages that make a candidate of the trained net.

    Args:
        like: the artifact that is sought: what its stages say of layers and calibration holds for its candidates.
        quick: trained for `proxy_epochs` only, to be looked at cheaply.
    """
    net, rate = candidate.net, search.learning_rate
    epochs, repair = (search.proxy_epochs,) * 2 if quick else (search.epochs, search.repair_epochs)
    stages: list[Stage] = []
    if net.arguments:
        student = Model(factory=model.factory, arguments={**model.arguments, **net.arguments})
        stages.append(Distill(stage="distill", student=student, epochs=epochs, learning_rate=rate))
    if net.prune:
        structured = (one for one in like.stages if isinstance(one, Prune) and one.method == "structured")
        own = next(structured, Prune(stage="prune"))
        stages.append(own.model_copy(update={"ratio": net.prune, "round_to": search.round_to}))
        if net.distill:
            stages.append(Distill(stage="distill", epochs=repair, learning_rate=rate))
        else:
            stages.append(Finetune(stage="finetune", epochs=repair, learning_rate=rate))
    if candidate.precision != "fp32":
        quantize = next((one for one in like.stages if isinstance(one, Quantize)), Quantize(stage="quantize"))
        stages.append(quantize.in_precision(candidate.precision))
    return (*stages, like.export)
