"""Messages of torch and torchao about themselves, kept from the user's terminal."""

import logging
import warnings


def quiet_torch() -> None:
    """Drops what is no news to a user: extensions for other machines that torchao did not load, deprecations inside."""
    for name in ("torchao", "torch.utils._pytree", "torch.onnx", "torch.fx.experimental.symbolic_shapes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\._inductor\..*")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(torch|torchao|torch_pruning)\..*")
