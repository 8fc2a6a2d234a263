"""GPU time by process, from a driver's library that a C compiler makes here in place of NVIDIA's."""

import os
import subprocess
import sys

import pytest

from emberline.errors import MissingTool
from emberline.rollout.gpu_clocks import GpuClocks

# one process at half of a GPU, then at a quarter, on the first of two; the other one is idle
_DRIVER = """
#include <stddef.h>
typedef struct { unsigned pid; unsigned long long stamp; unsigned sm, mem, enc, dec; } Sample;
static int calls = 0;
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(size_t)(index + 1); return 0; }
const char *nvmlErrorString(int code) { return code == 3 ? "Not Supported" : "Not Found"; }
int nvmlDeviceGetProcessUtilization(void *device, Sample *samples, unsigned *count, unsigned long long since) {
    if (REFUSES) return 3;
    if (device != (void *)1) return 6;
    if (samples == NULL) { *count = 1; return 7; }
    samples[0] = (Sample){4711, since + 1, calls++ ? 25 : 50, 0, 0, 0};
    *count = 1;
    return 0;
}
"""
_READ = """
import itertools, time
from emberline.errors import EmberlineError
from emberline.rollout.gpu_clocks import GpuClocks
now = itertools.count(1000, 10)
time.time = lambda: float(next(now))
clocks = GpuClocks()
try:
    print(*[clocks.read() for _ in range(3)])
except EmberlineError as error:
    print(error)
"""


def _read(folder, *, refuses):
    pytest.importorskip("pynvml", reason="pip install 'emberline[gpu]'")
    (folder / "driver.c").write_text(_DRIVER)
    library = ["-shared", "-fPIC", f"-DREFUSES={int(refuses)}", "-o", folder / "libnvidia-ml.so.1", folder / "driver.c"]
    subprocess.run(["cc", *library], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-c", _READ]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_shares_of_the_time_between_readings_are_added_up_by_process(tmp_path):
    assert _read(tmp_path, refuses=False) == "{} {4711: 5.0} {4711: 7.5}"


def test_a_driver_that_does_not_tell_is_quoted_with_a_hint(tmp_path):
    said = _read(tmp_path, refuses=True)
    assert said.startswith("NVIDIA's driver does not tell the GPU time of processes: Not Supported\nhint: ")
    assert "MIG" in said


def test_a_missing_binding_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingTool) as error:
        GpuClocks().read()
    assert error.value.hint == "pip install 'emberline[gpu]'"
