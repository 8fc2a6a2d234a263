"""`emberline verify`."""

import sys
from pathlib import Path


def verify(*archives: Path, keys: Path = Path("keys"), store: Path = Path("store")) -> int:
    """Check that archives are what the owner of a key signed, without unpacking them.

    Args:
        archives: The archives; without any, all of the store.
        keys: Folder with the signer's signing.pub.
        store: Folder looked into when no archive is named.
    """
    from emberline import signing
    from emberline.archivefile import read_archive
    from emberline.errors import EmberlineError, MissingFile
    from emberline.runlog import RunLog

    paths = archives or tuple(sorted(store.glob("*.mar")))
    if not paths:
        raise MissingFile(store, "an archive", hint="emberline archive makes archives")
    failed = 0
    for path in paths:
        try:
            fingerprint = signing.verify(path, keys / signing.PUBLIC_KEY)
            info = read_archive(path)
        except EmberlineError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        RunLog().say(f"{path}: {info.model} {info.version}, signed with key {fingerprint[:16]}")
    return 1 if failed else 0
