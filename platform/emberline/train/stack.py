"""Where another process is, in Python: its frames, read out of its memory by py-spy.

Without stopping it: a process that is stopped already could not be stopped and let go on.
"""

import json
import subprocess
import sysconfig
from pathlib import Path

_TIMEOUT_S = 5.0
_DEEPEST = 40  # frames


def stack_of(pid: int) -> list[str]:
    """The frames of the process's main thread, innermost first; one line that says why there are none."""
    program = Path(sysconfig.get_path("scripts"), "py-spy")
    if not program.is_file():
        return ["no stack: pip install 'emberline[stacks]' brings py-spy, which reads it"]
    command = [str(program), "dump", "--nonblocking", "--json", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return [f"no stack: py-spy took more than {_TIMEOUT_S:g} s"]
    if done.returncode:
        return [f"no stack: py-spy: {' '.join(done.stderr.split())[:300]}"]
    threads = json.loads(done.stdout)
    # one without a thread of that number runs in another namespace of pids, where the first thread is the main one
    main = next((one for one in threads if one["os_thread_id"] == pid), threads[0])
    return [f"{one['name']} ({one['filename']}:{one['line']})" for one in main["frames"][:_DEEPEST]]
