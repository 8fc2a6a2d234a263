"""Fills the blocks of README.md and docs/results.md from what was recorded in `benchmarks/results/*.json`.

A block stands between `<!-- block: NAME -->` and `<!-- end -->`. Without arguments the pages are rewritten; with
`--check` nothing is written, and a difference is an error. Blocks that need a result which was not recorded yet are an
error too: a figure without its source must not stay.
"""

import difflib
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs/results.md")
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


ELSEWHERE = {"reached", "medians", "accuracy_percent"}  # have a column or a table of their own


def measured(suite: str) -> str:
    """Every key of a suite: what was asked, what came out, and the command that does it again."""
    rows = []
    for name, record in result(suite).items():
        facts = {key: value for key, value in record["summary"].items() if key not in ELSEWHERE}
        reached = "yes" if record["summary"]["reached"] else "**no**"
        rows.append(
            [
                f"`{name}`",
                record["what"],
                record["target"],
                _facts(facts),
                reached if record["complete"] else f"{reached}, trials are missing",
                f"{record['date']}, {record['machine']}, load {record['load_average']:.0f}",
            ]
        )
    head = ["key", "what", "target", "came out", "reached", "when, and on what"]
    return _table([head, ["---"] * len(head), *rows])


def throughput() -> str:
    """Requests a second and CPU of each server, one table a model, and how often ours is of each."""
    tables = []
    for name, record in result("serve").items():
        facts = record["summary"]
        if "medians" not in facts:
            continue
        counts = list(next(iter(facts["medians"].values())))
        head = ["server", *(f"{count} connection{'s' * (count != '1')}" for count in counts), "ours to it"]
        rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
        for server, by in facts["medians"].items():
            cells = [f"{by[count]['rps']:,.0f} ({by[count]['cpu_us']:,.0f})" for count in counts]
            ratio = facts["ratios"].get(server)
            rows.append(
                [server, *cells, "" if ratio is None else " / ".join(f"{ratio[count]:.2f}" for count in counts)]
            )
        tables.append(f"`{name}`: requests a second, and server CPU of one in µs.\n\n{_table(rows)}")
    return "\n\n".join(tables)


METHODS = {
    "float": "float",
    "half_pruned": "half of the weights set to zero, at once",
    "half_pruned_trained_on": "the same, trained 3 epochs further",
    "unpruned_trained_on": "control: not pruned, trained as long",
    "after_training_8": "8-bit weights, after training",
    "aware_8": "8-bit weights, trained aware of it",
    "control_8": "control: the float net trained for the same CPU time, then 8 bits",
    "after_training_4": "4-bit weights, after training",
    "aware_4": "4-bit weights, trained aware of it",
    "control_4": "control: the float net trained for the same CPU time, then 4 bits",
    "by_labels": "taught by labels alone",
    "by_teacher": "taught by the plain net too",
}


def methods() -> str:
    """What pruning, quantization and distillation did to three small nets: median, and least to most over seeds."""
    table = result("compress")["seed_claims"]["summary"]["accuracy_percent"]
    rows = [["method", *(f"{net}, {one['weights']:,} weights" for net, one in table.items())]]
    rows.append(["---", *["---:"] * len(table)])
    for key, method in METHODS.items():
        cells = [
            f"{one[key]['median']:.1f} ({one[key]['least']:.1f} to {one[key]['most']:.1f})" if key in one else ""
            for one in table.values()
        ]
        rows.append([method, *cells])
    return _table(rows)


HIGHLIGHTS = (
    ("train", "bitwise", "random schedules of kills and resizes whose weights and losses are equal bit for bit",
     "{equal} of {tried}"),
    ("train", "corruptions", "damaged checkpoints that were caught before a weight was used", "{caught} of {tried}"),
    ("train", "store_kill", "deaths of the rendezvous store that the running world outlived untouched",
     "{untouched} of {trials}"),
    ("train", "worker_kill", "seconds that a worker's SIGKILL costs; plain torchrun's restart",
     "{emberline_s}; {plain_s}"),
    ("train", "agent_kill", "seconds that a node's loss costs; plain torchrun as it comes, and tuned",
     "{emberline_s}; {plain_default_s}, {plain_tuned_s}"),
    ("train", "goodput", "share of the calm machine's steps with a kill every minute", "{kill_every_60s:.3f}"),
    ("train", "parquet_loader", "pictures a second from Parquet, in exact order; Grain; HF datasets",
     "{emberline}; {grain}; {datasets}"),
    ("train", "hang", "seconds until a stopped rank was named, on a busy machine", "{detected_stopped_s}"),
    ("compress", "silent_failures", "failures served in silence elsewhere that were refused", "{caught} of {tried}"),
    ("serve", "lost_version_switch", "requests without a right answer in {switches} version switches under load",
     "{error} of {requests}"),
    ("serve", "malformed", "malformed requests to seven handlers that were not refused with their field",
     "{bad_not_named} of {bad}"),
    ("compare", "conformance", "units that Envoy and Python assigned alike", "{equal} of {tried}"),
    ("compare", "false_positives", "false alarms of two equal versions looked at {looks} times, at alpha .05",
     "{anytime:.3f}"),
    ("compare", "paired_shadow", "times fewer requests than an unpaired test needs to find a loss of half a point",
     "{times_fewer:.0f}"),
    ("compare", "error_regression", "seconds from the log's showing a version that fails to the traffic's return",
     "{seconds_after}"),
)  # fmt: skip


def highlights() -> str:
    rows = []
    for suite, key, what, value in HIGHLIGHTS:
        record = result(suite)[key]
        if not record["complete"]:
            sys.exit(f"error: {suite} {key} was not run to its end\nhint: make bench-{suite} ONLY={key}")
        facts = record["summary"]
        rows.append(f"| {what.format(**facts)} | {value.format(**facts)} | `make bench-{suite} ONLY={key}` |")
    return "\n".join(["| what | came out | again by |", "|---|---:|---|", *rows])


def _table(rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows)


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in facts.items())


def _value(value: object) -> str:
    if isinstance(value, dict):
        return f"({_facts(value)})"
    if isinstance(value, list):
        return f"[{', '.join(_value(one) for one in value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _recorded(content: dict[str, Any]) -> str:
    return f"Recorded {content['date']} by `{content['command']}` on {content['machine']}."


BLOCKS: dict[str, Callable[[], str]] = {
    "demo-stages": demo_stages,
    "demo-curl": demo_curl,
    "demo-compare": demo_compare,
    "highlights": highlights,
    "throughput": throughput,
    "methods": methods,
    **{f"{suite}-results": partial(measured, suite) for suite in ("train", "compress", "serve", "compare")},
}


def render(text: str) -> str:
    return BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match['name']]()}\n{match[3]}", text)


def main() -> None:
    different = False
    for page in PAGES:
        before = page.read_text()
        after = render(before)
        if "--check" not in sys.argv:
            page.write_text(after)
        elif before != after:
            different = True
            name = page.relative_to(ROOT)
            sys.stdout.writelines(
                difflib.unified_diff(before.splitlines(True), after.splitlines(True), str(name), "recorded")
            )
    if different:
        sys.exit("error: a page is not what was recorded\nhint: make readme")


if __name__ == "__main__":
    main()
