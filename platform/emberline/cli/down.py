"""`emberline down`."""

from pathlib import Path


def down(*, state: Path = Path("state")) -> None:
    """Stop what `emberline up` or `emberline demo --keep` left running.

    Args:
        state: Folder that it runs from.
    """
    from emberline.up.stack import stop_running

    print("stopped" if stop_running(state) else f"nothing runs from {state}/")
