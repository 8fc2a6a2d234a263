"""Which processes are left of those that should be gone."""

import psutil


def left_after(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that still run after `timeout_s`; one that only waits for its parent to read its exit code does not run."""
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    return [process for process in alive if not _is_zombie(process)]


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
