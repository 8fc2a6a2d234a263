"""A state that is divided among workers, written by all of them and read by any number of them, by torch's DCP.

Files are safetensors, one a rank, with each tensor's place in the whole in their headers: DCP's own format keeps that
in a pickle, which could run code. What makes a checkpoint of them is the same as everywhere: the manifest with every
hash, the fence, the verification before anything is read.
"""

import re
from pathlib import Path

import torch
from torch import nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from emberline.errors import EmberlineError
from emberline.train.state import Learner, Tensors
from emberline.train.world import peers_guarded

_OF_OPTIMIZER = re.compile(r"optimizer/(\d+)/")


def write(folder: Path, tensors: Tensors) -> None:
    """Writes this rank's part into a folder; all ranks call it together."""
    with peers_guarded():
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def read(folder: Path, learner: Learner) -> None:
    """Brings the learner to a state that `write` wrote; all ranks call it together.

    Raises:
        EmberlineError: the state is of another model.
    """
    reader = HuggingFaceStorageReader(str(folder))
    kept = reader.read_metadata().state_dict_metadata
    targets = {name: torch.zeros_like(tensor) for name, tensor in learner.tensors().items()}
    parameters = [one for group in learner.optimizer.param_groups for one in group["params"]]
    for name, described in kept.items():
        if (found := _OF_OPTIMIZER.match(name)) and isinstance(described, TensorStorageMetadata):
            targets[name] = _like(described, parameters, int(found[1]))
    if missing := sorted(targets.keys() ^ kept.keys()):
        hint = "the model's code was changed since; use another run name (--set run=NAME)"
        raise EmberlineError(f"the saved state is of another model: {missing[0]}", place=folder, hint=hint)
    with peers_guarded():
        load(targets, storage_reader=reader)
    learner.load(targets)


def _like(described: TensorStorageMetadata, parameters: list[nn.Parameter], index: int) -> torch.Tensor:
    """Room for one tensor of the optimizer's state: divided as its parameter is, where it is of that shape."""
    if index < len(parameters) and described.size == parameters[index].shape:
        return torch.zeros_like(parameters[index].data, dtype=described.properties.dtype)
    return torch.zeros(described.size, dtype=described.properties.dtype)
