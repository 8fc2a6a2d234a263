"""Single weights set to zero, by magnitude, by movement in training, or two of every four; by torch.nn.utils.prune.

Smaller in a zip file and nowhere else: no CPU backend here is faster for it; two of four needs a GPU's sparse kernels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune as untyped_prune

from emberline.compress import layers
from emberline.compress.context import Context
from emberline.errors import StageFailed
from emberline.recipe import Prune
from emberline.train.finetune import finetune

prune: Any = untyped_prune  # torch ships it without types
_GROUP, _ZEROS = 4, 2  # two of every four inputs
_CUTS = 10  # how often movement pruning sets more weights to zero


def set_zeros(
    model: nn.Module, settings: Prune, context: Context, masked: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Prunes in place: names of the layers whose zeros shall stay, and what to report.

    Args:
        masked: layers whose zeros are there to stay already.

    Raises:
        InvalidSetting: an ignored layer is not there.
        StageFailed: no layer is left that could be pruned.
    """
    ignored = layers.matching(model, settings.ignored_layers, stage="prune", key="ignored_layers")
    chosen: dict[str, nn.Module] = {
        n: m for n, m in model.named_modules() if isinstance(m, layers.WEIGHTED) and not layers.within(n, ignored)
    }
    skipped: list[str] = []
    if settings.method == "2:4":
        skipped = [name for name, layer in chosen.items() if layer.get_parameter("weight")[0].numel() % _GROUP]
        chosen = {name: layer for name, layer in chosen.items() if name not in skipped}
        if skipped:
            context.log.say(f"prune: {', '.join(skipped)} stay as they are: their inputs are no multiple of {_GROUP}")
    if not chosen:
        hint = "ignored_layers leaves none" if ignored else "the model has no convolution or linear layer"
        raise StageFailed("prune", f"method {settings.method} found no layer to set zeros in", hint=hint)
    with zeros_kept(model, tuple(name for name in masked if name not in chosen)):
        _METHODS[settings.method](model, chosen, settings, context)
    kept = [layer.get_parameter("weight") for layer in chosen.values()]
    zeros, weights = sum(int((one == 0).sum()) for one in kept), sum(one.numel() for one in kept)
    facts = {"method": settings.method, "zeros": zeros, "of": weights, "sparsity": zeros / weights}
    return tuple(dict.fromkeys((*masked, *chosen))), {**facts, "left_dense": skipped} if skipped else facts


@contextmanager
def zeros_kept(model: nn.Module, masked: tuple[str, ...]) -> Iterator[None]:
    """While weights are trained inside: those that are zero in the masked layers stay zero.

    By their gradients, so that it holds for a traced graph as well, which reads weights past the layers.
    """
    weights = [model.get_submodule(name).get_parameter("weight") for name in masked]
    hooks = [one.register_hook((one.detach() != 0).to(one.dtype).mul) for one in weights if one.requires_grad]  # type: ignore[no-untyped-call]  # torch ships it without types
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _magnitude(_model: nn.Module, chosen: dict[str, nn.Module], settings: Prune, _context: Context) -> None:
    """The weights nearest to zero, over all layers together."""
    pairs = [(layer, "weight") for layer in chosen.values()]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=settings.ratio)
    _make_permanent(chosen)


def _two_of_four(_model: nn.Module, chosen: dict[str, nn.Module], _settings: Prune, _context: Context) -> None:
    """In each group of four inputs of an output, the two smaller ones, as sparse tensor cores want it."""
    for layer in chosen.values():
        prune.custom_from_mask(layer, "weight", two_of_four(layer.get_parameter("weight")))
    _make_permanent(chosen)


def two_of_four(weight: torch.Tensor) -> torch.Tensor:
    """A mask of ones and zeros; inputs are counted as the flattened rest of the weight's shape."""
    groups = weight.detach().abs().reshape(len(weight), -1, _GROUP)
    smallest = groups.topk(_ZEROS, dim=2, largest=False).indices
    return torch.ones_like(groups).scatter_(2, smallest, 0).reshape(weight.shape)


def is_two_of_four(model: nn.Module, masked: tuple[str, ...]) -> bool:
    """Whether each group of four inputs in those layers has two zeros or more."""
    weights = [model.get_submodule(name).get_parameter("weight") for name in masked]
    return all(
        one[0].numel() % _GROUP == 0
        and bool(((one.detach().reshape(len(one), -1, _GROUP) == 0).sum(2) >= _ZEROS).all())
        for one in weights
    )


def _movement(model: nn.Module, chosen: dict[str, nn.Module], settings: Prune, context: Context) -> None:
    """The weights that training moves towards zero: scores add up minus weight·gradient, the least go, more and more.

    Once zero a weight stays zero, those that were zero before among them, which count. The share follows Zhu and
    Gupta's cubic schedule and ends after three quarters of the steps, so that the rest can settle.
    Source: Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning (2020), equation 5.
    """
    pairs = [(layer, "weight") for layer in chosen.values()]
    for layer, _ in pairs:
        prune.custom_from_mask(layer, "weight", (layer.get_parameter("weight") != 0).float())
    scores = {pair: torch.zeros_like(getattr(pair[0], "weight_orig")) for pair in pairs}  # noqa: B009 - torch made it
    total = sum(score.numel() for score in scores.values())
    cut = 0

    def after_step(step: int, steps: int, _loss: float) -> None:
        nonlocal cut
        for (layer, _), score in scores.items():
            weight = layer.get_parameter("weight_orig")
            if weight.grad is not None:
                score.sub_(weight.detach() * weight.grad)
        due = min(_CUTS, step * _CUTS * 4 // (3 * steps))
        if due > cut:
            cut = due
            wanted = round(total * settings.ratio * (1 - (1 - cut / _CUTS) ** 3))
            already = sum(int((layer.get_buffer("weight_mask") == 0).sum()) for layer, _ in pairs)
            prune.global_unstructured(
                pairs,
                pruning_method=prune.L1Unstructured,
                importance_scores=_above_zero(scores),
                amount=max(0, wanted - already),
            )

    train(model, settings, context, after_step)
    _make_permanent(chosen)


def _above_zero(scores: dict[Any, torch.Tensor]) -> dict[Any, torch.Tensor]:
    """Scores shifted so that the least is the least in magnitude too, which is what torch's method looks at."""
    least = min(float(score.min()) for score in scores.values())
    return {pair: score - least for pair, score in scores.items()}


def train(model: nn.Module, settings: Prune, context: Context, after_step: Callable[[int, int, float], None]) -> None:
    with context.log.progress("prune", total=None) as advance:

        def both(step: int, steps: int, loss: float) -> None:
            after_step(step, steps, loss)
            advance(1, steps, loss=loss)

        finetune(
            model, context.recipe, context.splits, epochs=settings.epochs, learning_rate=settings.learning_rate,
            search=context.search, progress=both,
        )  # fmt: skip


def _make_permanent(chosen: dict[str, nn.Module]) -> None:
    for layer in chosen.values():
        prune.remove(layer, "weight")


_METHODS: dict[str, Callable[[nn.Module, dict[str, nn.Module], Prune, Context], None]] = {
    "magnitude": _magnitude,
    "movement": _movement,
    "2:4": _two_of_four,
}
