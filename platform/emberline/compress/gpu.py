"""What a GPU must be for each kind of package. Pure, no torch.

Source: torchao's own requirements (fp8 from compute capability 8.9, int8 and sparse tensor cores from 8.0).
"""

from collections.abc import Mapping
from typing import Literal

from emberline.errors import MissingTool, StageFailed

Capability = tuple[int, int]
Kind = Literal["fp32", "bf16", "fp16", "int8", "fp8", "2:4"]

LEAST: Mapping[Kind, Capability] = {
    "fp32": (7, 0), "fp16": (7, 0), "bf16": (8, 0), "int8": (8, 0), "2:4": (8, 0), "fp8": (8, 9),
}  # fmt: skip
SPARSE = ("bf16", "fp16")  # what sparse tensor cores multiply by torch's semi-structured kernels


def architecture(capability: Capability) -> str:
    """As compilers and packages name it: `sm_90`."""
    return f"sm_{capability[0]}{capability[1]}"


def require(capability: Capability | None, kind: Kind) -> str:
    """The GPU's architecture, where it can compute that kind.

    Raises:
        MissingTool: there is no GPU.
        StageFailed: it is too old.
    """
    if capability is None:
        hint = "run this where nvidia-smi finds one, with a CUDA build of torch, or set compress.device: cpu"
        raise MissingTool("an NVIDIA GPU", "no package for device cuda can be made", hint=hint)
    least = LEAST[kind]
    if capability < least:
        fact = f"{kind} needs a GPU of {architecture(least)} or later; this one is {architecture(capability)}"
        raise StageFailed("export", fact, hint="bf16 from sm_80 on, fp16 and fp32 from sm_70 on")
    return architecture(capability)


def is_sparse(two_of_four: tuple[str, ...], precision: str) -> tuple[bool, str | None]:
    """Whether layers pruned 2:4 get sparse kernels, and why they do not where there are some."""
    if not two_of_four:
        return False, None
    if precision not in SPARSE:
        return False, f"weights pruned 2:4 stay dense in {precision}: sparse kernels take {' and '.join(SPARSE)}"
    return True, None
