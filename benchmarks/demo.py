"""Records the demo as a newcomer sees it: its stages, answers to its curl lines, and the comparison it printed.

    python benchmarks/demo.py        (or: make bench-demo)

Runs in an empty folder, on ports of its own, and writes `benchmarks/results/demo.json`, from which the README's blocks
are made.
"""

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from machine import describe_commit, describe_machine

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/demo.json"
EMBERLINE = [sys.executable, "-m", "emberline.cli"]


def run(folder: Path, *arguments: str) -> str:
    return subprocess.run([*EMBERLINE, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def record(folder: Path) -> dict[str, object]:
    run(folder, "demo", "--keep")
    try:
        up = json.loads((folder / "state/up.json").read_text())
        commands = [line for line in up["curl"] if line.startswith("curl")]
        # -f: an answer that is an error must not be recorded as the example
        answers = [
            subprocess.run(
                ["bash", "-c", line.replace("curl -s", "curl -sf")], check=True, capture_output=True, text=True
            )
            for line in commands
        ]
        comparison = run(folder, "compare", f"state/experiments/{up['experiment']}.yaml")
    finally:
        run(folder, "down")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "make bench-demo",
        "machine": describe_machine(),
        "commit": describe_commit(),
        "stages": json.loads((folder / "report/demo.json").read_text()),
        "curl": [{"command": c, "answer": a.stdout} for c, a in zip(commands, answers, strict=True)],
        "comparison": comparison,
    }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="emberline-demo-") as folder:
        content = record(Path(folder))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
