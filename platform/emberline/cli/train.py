"""`emberline train`."""

import signal
import sys
from pathlib import Path

from emberline.cli.options import DEFAULT_RECIPE, Set, find_recipe


def train(
    recipe: Path = DEFAULT_RECIPE,
    /,
    *,
    settings: Set = (),
    sample: float | None = None,
    runs: Path = Path("runs"),
    nnodes: str = "1:1",
    nproc_per_node: str = "2",
    rdzv_backend: str = "c10d",
    rdzv_endpoint: str = "",
    rdzv_id: str = "",
    rdzv_conf: str = "",
    max_restarts: int | None = None,
) -> int:
    """Train a recipe with elastic workers; a run that has ended is reused, one that was interrupted goes on.

    Exits with 75 when SIGTERM (a preemption notice) ended it: the state is saved, the same command goes on.

    Args:
        recipe: The recipe file.
        sample: Train on this fraction of the training rows, always the same ones: a quick look, told in the artifact.
        runs: Folder of runs; this one is its subfolder of the recipe's run name.
        nnodes: Number of nodes, or MIN:MAX of them, as torchrun takes it.
        nproc_per_node: Workers on this node: a number, or auto, cpu, gpu.
        rdzv_backend: Rendezvous backend, as torchrun takes it.
        rdzv_endpoint: HOST:PORT of a store that `emberline rendezvous` serves; without it one is started here.
        rdzv_id: Name of the job at the store, the same on all nodes.
        rdzv_conf: Further rendezvous settings, key=value,… as torchrun takes them.
        max_restarts: Restarts of the workers before giving up; the recipe's train.max_restarts if not given.
    """
    from emberline.train.notice import Interrupted, Notice
    from emberline.train.preemption import PREEMPTED

    notice = Notice()
    notice.listen()  # first, since what trains takes seconds to load
    try:
        from emberline.train.launch import Launch, launch

        if sample is not None:
            settings = (*settings, f"data.sample={sample}")
        return launch(
            Launch(
                find_recipe(recipe), settings, runs, nnodes, nproc_per_node,
                rdzv_backend, rdzv_endpoint, rdzv_id, rdzv_conf, max_restarts,
            ), notice,
        )  # fmt: skip
    except Interrupted as signalled:
        print("stopped before anything began; the same command starts it", file=sys.stderr)
        return 130 if signalled.number == signal.SIGINT else PREEMPTED
