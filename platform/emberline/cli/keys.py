"""`emberline keys`."""

from pathlib import Path


def keys(*, keys: Path = Path("keys")) -> None:
    """Make the key pair that archives are signed with; one that is there is kept.

    Args:
        keys: Folder of signing.key, which only you can read, and signing.pub, for those who verify.
    """
    from emberline import signing
    from emberline.runlog import RunLog

    if (keys / signing.PRIVATE_KEY).exists():
        pair = signing.read_keys(keys)
        RunLog().say(f"{pair.public}: kept, key {pair.fingerprint[:16]}")
        return
    pair = signing.create_keys(keys)
    RunLog().say(f"{pair.public}: made, key {pair.fingerprint[:16]}; keep {pair.private} to yourself")
