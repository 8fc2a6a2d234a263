"""Small nets on the digits of scikit-learn, trained and quantized by the libraries themselves: claims about methods.

No part of Emberline decides here: what `torch.nn.utils.prune` and torchao's PT2E do on this data is what is shown.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # inputs, outputs, labels
BATCH = 64


@dataclass(frozen=True)
class Rows:
    train: tuple[torch.Tensor, torch.Tensor]
    held_out: tuple[torch.Tensor, torch.Tensor]


def digits(seed: int) -> Rows:
    """1,797 digits of 8 by 8 pixels: 1,000 to train on, 797 held out, another choice each seed."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    images = torch.from_numpy((x[order] / 16).astype(np.float32)).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(y[order].astype(np.int64))
    return Rows((images[:1000], labels[:1000]), (images[1000:], labels[1000:]))


def plain(width: int) -> nn.Module:
    from emberline.models.digits import digits_cnn

    return digits_cnn(width)


def depthwise(width: int) -> nn.Module:
    """The same three layers, all but the first depthwise-separable."""

    def block(inside: int, outside: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inside, inside, 3, padding=1, groups=inside, bias=False), nn.BatchNorm2d(inside), nn.ReLU(),
            nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(),
        ]  # fmt: skip

    first = [nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    middle = [*block(width, width), nn.MaxPool2d(2), *block(width, 2 * width)]
    return nn.Sequential(*first, *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))


def fit(
    model: nn.Module, rows: Rows, *, epochs: int, rate: float, seed: int, loss: Loss | None = None, budget_s: float = 0
) -> float:
    """Trains in place, Adam with a cosine; returns the processor time it took.

    Args:
        budget_s: goes on in epochs, at the last rate, until this much processor time is spent.
    """
    torch.manual_seed(seed)
    images, labels = rows.train
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    begin, epoch = time.process_time(), 0
    while epoch < epochs or time.process_time() - begin < budget_s:
        shown = min(epoch, epochs - 1)
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * shown / epochs))
        model.train()
        for chosen in torch.randperm(len(labels)).split(BATCH):
            x, y = images[chosen], labels[chosen]
            outputs = model(x)
            cost = nn.functional.cross_entropy(outputs, y) if loss is None else loss(x, outputs, y)
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        epoch += 1
    model.eval()
    return time.process_time() - begin


def accuracy(model: Any, rows: Rows) -> float:
    images, labels = rows.held_out
    with torch.no_grad():
        answers = torch.cat([model(piece) for piece in images.split(BATCH)])
    return float((answers.argmax(1) == labels).float().mean())


def quantized(model: nn.Module, rows: Rows, bits: int) -> Any:
    """After training: scales from 256 rows, weights in `bits` a channel, activations in 8 bits a tensor."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    with torch.no_grad():
        prepared = prepare_pt2e(_graph(model.eval()), _quantizer(bits, aware=False))
        for piece in rows.train[0][:256].split(BATCH):
            prepared(piece)
        return convert_pt2e(prepared)


def trained_aware(model: nn.Module, rows: Rows, bits: int, *, epochs: int, rate: float, seed: int) -> tuple[Any, float]:
    """Trained with fake quantization, then converted; and the processor time it took."""
    from torchao.quantization.pt2e import allow_exported_model_train_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

    begin = time.process_time()
    prepared = prepare_qat_pt2e(_graph(copy.deepcopy(model).train()), _quantizer(bits, aware=True))
    allow_exported_model_train_eval(prepared)
    fit(prepared, rows, epochs=epochs, rate=rate, seed=seed)
    seconds = time.process_time() - begin
    with torch.no_grad():
        return convert_pt2e(prepared), seconds


def _graph(model: nn.Module) -> Any:
    batch = torch.export.Dim("batch", min=1, max=4096)
    graph = torch.export.export(model, (torch.zeros(BATCH, 1, 8, 8),), dynamic_shapes=({0: batch},)).module()
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _quantizer(bits: int, *, aware: bool) -> Any:
    """PyTorch's quantizer for x86, its weights narrowed to `bits`."""
    from dataclasses import replace

    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86

    config = x86.get_default_x86_inductor_quantization_config(is_qat=aware)
    narrow = replace(config.weight, quant_min=-(2 ** (bits - 1)), quant_max=2 ** (bits - 1) - 1)
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(replace(config, weight=narrow))
    return quantizer


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most, in percent."""
    return {
        "median": round(100 * float(np.median(values)), 2),
        "least": round(100 * min(values), 2),
        "most": round(100 * max(values), 2),
    }
