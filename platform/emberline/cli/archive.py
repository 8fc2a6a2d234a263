"""`emberline archive`."""

from pathlib import Path

from emberline.cli.options import DEFAULT_RECIPE, Set, find_recipe


def archive(
    recipe: Path = DEFAULT_RECIPE,
    /,
    *,
    settings: Set = (),
    runs: Path = Path("runs"),
    store: Path = Path("store"),
    keys: Path = Path("keys"),
) -> None:
    """Pack each artifact that the recipe gives a version into a signed .mar; unchanged ones are reused.

    Args:
        recipe: The recipe whose `archive` section says model, versions and handler.
        runs: Folder of the runs.
        store: Folder the archives go to.
        keys: Folder of the key pair to sign with; made when there is none.
    """
    from emberline import signing
    from emberline.archive.store import archive_all
    from emberline.recipe import load_recipe
    from emberline.runlog import RunLog

    path = find_recipe(recipe)
    loaded = load_recipe(path, settings)
    say = RunLog().say
    archive_all(loaded, path, runs=runs, store=store, keys=signing.ensure_keys(keys, say), say=say)
