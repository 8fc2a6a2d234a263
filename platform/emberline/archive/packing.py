"""torch-model-archiver, called; then its zip written again so that the same files always make the same bytes."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import package_model
from model_archiver.model_packaging_utils import ModelExportUtils

from emberline.archivefile import SERVER_MANIFEST

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say
_UNIX = 3
_READABLE = 0o100644 << 16


def pack(target: Path, files: Path, handler: Path, *, model: str, version: str, created: str) -> None:
    """Writes an archive of a flat folder of files and a handler.

    Args:
        created: what the archive's manifest says of its time; the artifact's, so that bytes depend on nothing else.
    """
    with tempfile.TemporaryDirectory(prefix="emberline-archive-") as name:
        folder = Path(name)
        config = ModelArchiverConfig(
            model_name=model,
            handler=str(handler),
            version=version,
            extra_files=str(files),
            export_path=str(folder),
            archive_format="zip-store",
        )
        with _temporary_folder(folder / "scratch"):
            package_model(config, manifest=ModelExportUtils.generate_manifest_json(config))
        normalise(folder / f"{model}.mar", target, created)


def normalise(source: Path, target: Path, created: str) -> None:
    """Entries by name, one time and mode for all, stored: compressed bytes would depend on the zlib at hand."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in sorted(old.namelist()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = _UNIX, _READABLE
            entry.file_size = old.getinfo(name).file_size  # decides between the small and the large format of headers
            if name == SERVER_MANIFEST:
                manifest = {**json.loads(old.read(name)), "createdOn": created}
                new.writestr(entry, json.dumps(manifest, indent=2))
                continue
            with old.open(name) as content, new.open(entry, "w") as copy:
                shutil.copyfileobj(content, copy)


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[None]:
    """The archiver deletes and refills `<temporary folder>/<model name>`, whoever's that is: it gets one of its own."""
    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
