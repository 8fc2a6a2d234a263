"""Where a figure was taken: the machine and the commit, a line each."""

import os
import subprocess
from pathlib import Path


def describe_machine() -> str:
    """Processor, cores and vector extensions, such as `AMD EPYC, 2 cores, avx2`."""
    info = Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = named["flags"].split()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if flag in flags]
    return f"{named['model name']}, {os.cpu_count()} cores, {' '.join(wide)}"


def describe_commit() -> str:
    """The commit's short name, with `-dirty` where the tree had changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True).stdout.strip()
