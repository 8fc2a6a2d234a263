"""GPU time of this machine's processes, added up from what NVIDIA's driver says of each since it was last asked.

The driver tells the share of that time in which a process's kernels ran, in whole per cents, whoever's code they are of
(nvml.h, nvmlDeviceGetProcessUtilization). It tells nothing where a GPU is divided by MIG, and in a container without
the host's process ids it tells of numbers that are nobody's here.
"""

import time
from types import ModuleType
from typing import Any

from emberline.errors import EmberlineError, MissingTool

_US = 1e6


class GpuClocks:
    """Seconds in which each process kept a GPU busy, since the first reading."""

    def __init__(self) -> None:
        self._nvml: ModuleType | None = None
        self._seconds: dict[int, float] = {}
        self._read_us: int | None = None

    def read(self) -> dict[int, float]:
        """By process id; those that never used a GPU are left out. The first reading begins the count.

        Raises:
            MissingTool: Python's binding of the driver's library is not installed.
            EmberlineError: the driver does not tell; the count goes on with the next reading.
        """
        if self._nvml is None:
            self._nvml = _opened()
        now_us, before_us = int(time.time() * _US), self._read_us
        self._read_us = now_us
        if before_us is not None:
            for pid, percent in _shares(self._nvml, before_us):
                self._seconds[pid] = self._seconds.get(pid, 0.0) + percent / 100 * (now_us - before_us) / _US
        return dict(self._seconds)


def _opened() -> ModuleType:
    try:
        import pynvml
    except ImportError as error:
        hint = "pip install 'emberline[gpu]'"
        raise MissingTool("nvidia-ml-py", "the GPU time of requests is not measured", hint=hint) from error
    module: ModuleType = pynvml
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise _untold(error) from error
    return module


def _shares(nvml: Any, since_us: int) -> list[tuple[int, int]]:
    """Process id and per cents, of every GPU."""
    try:
        devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [(one.pid, one.smUtil) for device in devices for one in _samples(nvml, device, since_us)]
    except nvml.NVMLError as error:
        raise _untold(error) from error


def _samples(nvml: Any, device: Any, since_us: int) -> list[Any]:
    try:
        return list(nvml.nvmlDeviceGetProcessUtilization(device, since_us))
    except nvml.NVMLError as error:
        # no process used this one; NVML_SUCCESS is raised for a list of none
        if error.value in {nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_SUCCESS}:
            return []
        raise


def _untold(error: Exception) -> EmberlineError:
    hint = "a GPU divided by MIG tells nothing of processes; costs then are of processors alone, without prices"
    return EmberlineError(f"NVIDIA's driver does not tell the GPU time of processes: {error}", hint=hint)
