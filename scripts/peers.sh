#!/usr/bin/env bash
# Makes .venv-peers: the servers that `make bench-serve` compares with, in an environment of their own, and says which
# programs from the system are missing. TORCH_INDEX=URL takes torch from this package index.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v wrk >/dev/null || { echo "error: wrk is not installed; it drives the load" >&2; echo "hint: apt-get install wrk" >&2; exit 1; }
[ -x .venv-peers/bin/python ] || "${PYTHON:-python3}" -m venv .venv-peers
.venv-peers/bin/pip install --quiet ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"
.venv-peers/bin/pip install --quiet -r benchmarks/serve/peers.txt
echo "ready: .venv-peers"
