"""What the methods do on our data: half of the weights pruned, quantization after or during training, distillation.

On the digits of scikit-learn (1,000 rows to train on, 797 held out, chosen anew each seed), since that takes minutes on
a shared machine: nets of 600 to 7,500 weights. Weights in 8 or 4 bits, activations in 8. The control of training
aware of quantization spends the same processor time on training the float net further and is quantized after.
"""

import copy
from pathlib import Path
from typing import Any

import _small as small
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

TARGET = "a table with 3 seeds or more and their spreads, whatever it shows"
TRIALS = 3

_EPOCHS, _FURTHER, _RATE, _SLOW = 15, 3, 3e-3, 3e-4
_WIDTH, _STUDENT, _STUDENT_EPOCHS = 16, 4, 45  # a small net has not learned all it can in 15
_TEMPERATURE = 4.0


def trial(_folder: Path, number: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    rows = small.digits(number)
    facts: dict[str, Any] = {"seed": number}
    nets = {"plain": small.plain, "depthwise": small.depthwise}
    for name, make in nets.items():
        torch.manual_seed(number)
        net = make(_WIDTH)
        small.fit(net, rows, epochs=_EPOCHS, rate=_RATE, seed=number)
        facts[name] = {"weights": _weights(net), "float": small.accuracy(net, rows)}
        facts[name] |= {
            f"after_training_{bits}": small.accuracy(small.quantized(net, rows, bits), rows) for bits in (8, 4)
        }
        if name == "plain":
            facts[name] |= _pruned(net, rows, number) | _aware(net, rows, number)
            facts["student"] = _student(net, rows, number)
    return facts


def _pruned(net: nn.Module, rows: small.Rows, seed: int) -> dict[str, float]:
    """Half of all weights, the nearest to zero, as they are and after a little more training."""
    half = copy.deepcopy(net)
    pairs = [(layer, "weight") for layer in half.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=0.5)
    at_once = small.accuracy(half, rows)
    small.fit(half, rows, epochs=_FURTHER, rate=_SLOW, seed=seed)
    longer = copy.deepcopy(net)
    small.fit(longer, rows, epochs=_FURTHER, rate=_SLOW, seed=seed)
    zeros = sum(int((layer.weight == 0).sum()) for layer, _ in pairs) / sum(layer.weight.numel() for layer, _ in pairs)
    trained_on = {
        "half_pruned_trained_on": small.accuracy(half, rows),
        "unpruned_trained_on": small.accuracy(longer, rows),
    }
    return {"half_pruned": at_once, **trained_on, "zeros": zeros}


def _aware(net: nn.Module, rows: small.Rows, seed: int) -> dict[str, float]:
    facts = {}
    for bits in (8, 4):
        program, seconds = small.trained_aware(net, rows, bits, epochs=_FURTHER, rate=_SLOW, seed=seed)
        control = copy.deepcopy(net)
        spent = small.fit(control, rows, epochs=1, rate=_SLOW, seed=seed, budget_s=seconds)
        print(f"seed {seed}: trained aware of {bits} bits, and the control", flush=True)
        facts |= {
            f"aware_{bits}": small.accuracy(program, rows),
            f"control_{bits}": small.accuracy(small.quantized(control, rows, bits), rows),
            f"aware_{bits}_cpu_s": seconds,
            f"control_{bits}_cpu_s": spent,
        }
    return facts


def _student(teacher: nn.Module, rows: small.Rows, seed: int) -> dict[str, float]:
    """A student a quarter as wide, from the same start: taught by the labels alone, and by the teacher as well."""

    def taught(x: torch.Tensor, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            answers = functional.log_softmax(teacher.eval()(x) / _TEMPERATURE, dim=1)
        own = functional.log_softmax(outputs / _TEMPERATURE, dim=1)
        soft = functional.kl_div(own, answers, reduction="batchmean", log_target=True) * _TEMPERATURE**2
        return 0.7 * soft + 0.3 * functional.cross_entropy(outputs, labels)

    found: dict[str, float] = {}
    for name, loss in (("by_labels", None), ("by_teacher", taught)):
        torch.manual_seed(seed)
        student = small.plain(_STUDENT)
        small.fit(student, rows, epochs=_STUDENT_EPOCHS, rate=_RATE, seed=seed, loss=loss)
        found |= {name: small.accuracy(student, rows), "weights": _weights(student)}
    return found


def _weights(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy in percent on the rows held out, median with the least and the most over the seeds."""
    table: dict[str, Any] = {}
    for net in ("plain", "depthwise", "student"):
        counted = {key for key in trials[0][net] if key not in {"weights", "zeros"} and not key.endswith("_cpu_s")}
        table[net] = {key: small.spread([one[net][key] for one in trials]) for key in sorted(counted)}
        table[net]["weights"] = trials[0][net]["weights"]
    return {"accuracy_percent": table, "seeds": len(trials), "reached": len(trials) >= TRIALS}
