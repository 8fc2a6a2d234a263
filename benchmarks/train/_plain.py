"""The peer: a training script as torchrun's own documentation writes it, DDP with a checkpoint every 50 steps.

    torchrun --nproc-per-node=2 --max-restarts=9 _plain.py FOLDER

Model, data and so imports are those of the training it is compared with; each step is a line in FOLDER/plain.jsonl.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

CHECKPOINT_STEPS = 50


def main(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    import benchnet

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(benchnet.net())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    rows = benchnet.data().train
    checkpoint, step = folder / "plain.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    while True:
        first = (step * benchnet.BATCH + rank * benchnet.BATCH // size) % (len(rows) - benchnet.BATCH)
        batch = [rows[index] for index in range(first, first + benchnet.BATCH // size)]
        x = torch.from_numpy(np.stack([instance["x"] for instance, _ in batch]))
        loss = nn.functional.cross_entropy(model(x), torch.tensor([label for _, label in batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if rank == 0:
            restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
            line = {"time": time.time(), "step": step, "restarts": restarts}
            with (folder / "plain.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            if step % CHECKPOINT_STEPS == 0:
                fresh = checkpoint.with_suffix(".new")
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, fresh)
                fresh.replace(checkpoint)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
