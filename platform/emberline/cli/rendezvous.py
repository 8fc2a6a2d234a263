"""`emberline rendezvous`."""


def rendezvous(*, host: str = "127.0.0.1", port: int = 29400) -> None:
    """Serve the rendezvous store of elastic training, in a process that no agent's death takes along.

    `emberline train` starts one itself when it is given no `--rdzv-endpoint`; several nodes share one.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 picks a free one and prints it.
    """
    from emberline.train.rendezvous import serve_rendezvous

    serve_rendezvous(host, port)
