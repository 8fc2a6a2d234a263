"""Fills the README's blocks from what was recorded: `benchmarks/results/*.json` and the command's own help.

A block stands between `<!-- block: NAME -->` and `<!-- end -->`. Without arguments the README is rewritten; with
`--check` nothing is written, and a difference is an error. Blocks that need a result which was not recorded yet are an
error too: a figure without its source must not stay.
"""

import difflib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks/results"
BLOCK = re.compile(r"(<!-- block: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def result(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        sys.exit(f"error: {path.relative_to(ROOT)} is not there\nhint: make bench-{name}")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def demo_stages() -> str:
    demo = result("demo")
    rows = [f"| {row['stage']} | {row['outcome'].replace('|', '/')} | {row['seconds']:.0f} |" for row in demo["stages"]]
    total = sum(row["seconds"] for row in demo["stages"])
    head = ["| stage | what came out | seconds |", "|---|---|---:|"]
    return "\n".join([*head, *rows, f"| all | everything is stopped | {total:.0f} |", "", _recorded(demo)])


def demo_curl() -> str:
    demo = result("demo")
    lines = ["```console"]
    for call in demo["curl"]:
        lines += [f"$ {call['command']}", call["answer"].strip()]
    return "\n".join([*lines, "```"])


def demo_compare() -> str:
    return "\n".join(["```", result("demo")["comparison"].rstrip(), "```"])


def _recorded(content: dict[str, Any]) -> str:
    return f"Recorded {content['date']} by `{content['command']}` on {content['machine']}."


BLOCKS: dict[str, Callable[[], str]] = {
    "demo-stages": demo_stages,
    "demo-curl": demo_curl,
    "demo-compare": demo_compare,
}


def render(text: str) -> str:
    return BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match['name']]()}\n{match[3]}", text)


def main() -> None:
    before = README.read_text()
    after = render(before)
    if "--check" not in sys.argv:
        README.write_text(after)
        return
    if before != after:
        sys.stdout.writelines(
            difflib.unified_diff(before.splitlines(True), after.splitlines(True), "README", "recorded")
        )
        sys.exit("error: README.md is not what was recorded\nhint: make readme")


if __name__ == "__main__":
    main()
