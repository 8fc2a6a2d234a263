"""`emberline keys`."""

from pathlib import Path


def keys(*, keys: Path = Path("keys")) -> None:
    """Make the key pair that archives are signed with; one that is there is kept, a lost public half made again.

    Args:
        keys: Folder of signing.key, which only you can read, and signing.pub, for those who verify.
    """
    from emberline import signing
    from emberline.runlog import RunLog

    said: list[str] = []
    pair = signing.ensure_keys(keys, said.append)
    RunLog().say(said[0] if said else f"{pair.public}: kept, key {pair.fingerprint[:16]}")
