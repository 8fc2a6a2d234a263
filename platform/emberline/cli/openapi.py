"""`emberline openapi`."""

from pathlib import Path


def openapi(*archives: Path, store: Path = Path("store"), url: str = "http://127.0.0.1:8080") -> None:
    """Print the OpenAPI document of the router's API for some archives, for clients, generators and fuzzers.

    Args:
        archives: The archives; without any, all of the store. None is unpacked, and no signature is asked for.
        store: Folder looked into when no archive is named.
        url: The router's address, which the document names.
    """
    import orjson

    from emberline.archivefile import read_archive
    from emberline.errors import MissingFile
    from emberline.openapi import document

    paths = archives or tuple(sorted(store.glob("*.mar")))
    if not paths:
        raise MissingFile(store, "an archive", hint="emberline archive makes archives")
    found = document((read_archive(path) for path in paths), server=url)
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
