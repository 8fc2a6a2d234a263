"""The state after each step, in shared memory: it outlives a killed worker, and costs a copy.

One file a node, `[header | slot 0 | slot 1]`. A snapshot fills the slot that the header does not point at and flips
the header last; so whenever the writer dies there is one whole snapshot. The header holds the payload's hash, which is
checked at reading. Each generation writes a file of its own; a stale writer cannot touch its successor's.
"""

import mmap
import os
import shutil
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson
import torch
import xxhash

from emberline.train.state import Tensors

_SHM = Path("/dev/shm")  # noqa: S108 - shared memory is what this is about
_PREFIX = "emberline-"
_HEADER = struct.Struct("<8sQQQ16s")  # magic, slot, step, payload bytes, xxh3-128 of the payload
_MAGIC = b"ember01\n"
_HEADER_BYTES = 4096
_OWNER_AT = 64  # in the header
_LENGTH = struct.Struct("<Q")
_ALIGN = 64


@dataclass(frozen=True)
class Snapshot:
    step: int
    generation: int
    tensors: Tensors


class SnapshotWriter:
    """Writes snapshots of one generation.

    Args:
        path: the file, made by `snapshot_path`.
        tensors: of the shapes that will be written.
        owner: the run's folder; without it the file is litter.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self, path: Path, tensors: Tensors, owner: Path) -> None:
        self.path = path
        description, self._offsets, self._payload_bytes = _layout(tensors)
        self._slot_bytes = -(-self._payload_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        size = _HEADER_BYTES + 2 * self._slot_bytes
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # now, not as a SIGBUS in the middle of training
            self._map = mmap.mmap(descriptor, size)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(descriptor)
        self._bytes = torch.frombuffer(memoryview(self._map), dtype=torch.uint8)
        self._slot = 1
        name = os.fsencode(owner.resolve())[: _HEADER_BYTES - _OWNER_AT - _LENGTH.size]
        self._map[_OWNER_AT : _OWNER_AT + _LENGTH.size + len(name)] = _LENGTH.pack(len(name)) + name
        for slot in (0, 1):
            first = self._start(slot)
            self._map[first : first + _LENGTH.size + len(description)] = _LENGTH.pack(len(description)) + description

    def fits(self, tensors: Tensors) -> bool:
        """Whether they are those that the file was made for; an optimizer has none before it first moves."""
        return tensors.keys() == self._offsets.keys()

    def write(self, step: int, tensors: Tensors) -> None:
        """Copies the state into the free slot, then points the header at it."""
        slot = 1 - self._slot
        first = self._start(slot)
        for name, tensor in tensors.items():
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            start = first + self._offsets[name]
            self._bytes[start : start + flat.numel()].copy_(flat)
        payload = memoryview(self._map)[first : first + self._payload_bytes]
        digest = xxhash.xxh3_128(payload).digest()
        self._map[: _HEADER.size] = _HEADER.pack(_MAGIC, slot, step, self._payload_bytes, digest)
        self._slot = slot

    def _start(self, slot: int) -> int:
        return _HEADER_BYTES + slot * self._slot_bytes


def snapshot_path(run_id: str, generation: int, needed_bytes: int, fallback: Path) -> Path:
    """Where a generation's snapshots go: shared memory, or the run's own folder where that is too small."""
    room = shutil.disk_usage(_SHM).free if _SHM.is_dir() else 0
    folder = _SHM if room > 2 * needed_bytes else fallback
    return folder / f"{_PREFIX}{run_id}-{generation:06d}"


def needed_bytes(tensors: Tensors) -> int:
    return _HEADER_BYTES + 2 * (_layout(tensors)[2] + mmap.PAGESIZE)


def read_newest(run_id: str, fallback: Path) -> tuple[Snapshot | None, list[str]]:
    """The snapshot with the most steps done that this node has, and a line for each file that cannot be used."""
    best: Snapshot | None = None
    notes = []
    for path in _files(run_id, fallback):
        try:
            one = _read(path)
        except (OSError, ValueError) as error:
            notes.append(f"{path.name}: {error}")
            continue
        if one is not None and (best is None or (one.step, one.generation) > (best.step, best.generation)):
            best = one
    return best, notes


def remove_snapshots(run_id: str, fallback: Path, *, but: Path | None = None) -> None:
    for path in _files(run_id, fallback):
        if path != but:
            path.unlink(missing_ok=True)


def sweep() -> None:
    """Frees the shared memory of runs whose folders are gone; nobody else would."""
    for path in _SHM.glob(f"{_PREFIX}*-*"):
        with suppress(OSError):  # another user's, or already gone
            with path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES or header[: len(_MAGIC)] != _MAGIC:
                continue
            (length,) = _LENGTH.unpack_from(header, _OWNER_AT)
            start = _OWNER_AT + _LENGTH.size
            owner = Path(os.fsdecode(header[start : start + length]))
            if length and not owner.is_dir():
                path.unlink()


def _files(run_id: str, fallback: Path) -> list[Path]:
    return sorted(path for folder in (_SHM, fallback) for path in folder.glob(f"{_PREFIX}{run_id}-*"))


def _layout(tensors: Tensors) -> tuple[bytes, dict[str, int], int]:
    """The payload's description, where each tensor starts in it, and its length."""
    rows = [(name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)) for name, tensor in tensors.items()]
    description: bytes = orjson.dumps(rows)
    position = _LENGTH.size + len(description)
    offsets = {}
    for name, tensor in tensors.items():
        position = -(-position // _ALIGN) * _ALIGN
        offsets[name] = position
        position += tensor.numel() * tensor.element_size()
    return description, offsets, position


def _read(path: Path) -> Snapshot | None:
    """None for a file that holds no snapshot yet; ValueError for one that is damaged."""
    content = path.read_bytes()
    if len(content) < _HEADER_BYTES or content[: len(_MAGIC)] != _MAGIC:
        return None
    _, slot, step, length, digest = _HEADER.unpack_from(content)
    first = _HEADER_BYTES + slot * ((len(content) - _HEADER_BYTES) // 2)
    payload = bytearray(content[first : first + length])
    if xxhash.xxh3_128(payload).digest() != digest:
        raise ValueError("its hash does not match")
    (described,) = _LENGTH.unpack_from(payload)
    rows = orjson.loads(payload[_LENGTH.size : _LENGTH.size + described])
    tensors: Tensors = {}
    position = _LENGTH.size + described
    for name, dtype_name, shape in rows:
        dtype: torch.dtype = getattr(torch, dtype_name)
        position = -(-position // _ALIGN) * _ALIGN
        numel = int(torch.Size(shape).numel())
        one = (
            torch.frombuffer(payload, dtype=dtype, count=numel, offset=position)
            if numel
            else torch.empty(0, dtype=dtype)
        )
        tensors[name] = one.reshape(shape)
        position += numel * dtype.itemsize
    return Snapshot(step, int(path.name.rsplit("-", 1)[1]), tensors)
