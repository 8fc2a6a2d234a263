"""The rendezvous store in a process of its own, so that no agent's death takes it away from the others."""

import signal
import sys
from datetime import timedelta

from emberline.process import require_free_port

_TIMEOUT = timedelta(seconds=60)


def serve_rendezvous(host: str, port: int) -> None:
    """Serves the store until SIGTERM or Ctrl-C.

    Raises:
        EmberlineError: the port is taken.
    """
    if port:
        require_free_port(port, "the rendezvous store", host)
    # blocked before threads start: as a container's first process, unblocked ones would never reach sigwait
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, yet not in its __all__

    store = TCPStore(host, port, is_master=True, multi_tenant=True, wait_for_workers=False, timeout=_TIMEOUT)
    print(f"rendezvous store listens on {host}:{store.port}", file=sys.stderr)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
