#!/usr/bin/env bash
# Makes .venv-peers: the servers that `make bench-serve` compares with, in an environment of their own, and says which
# programs from the system are missing. TORCH_INDEX=URL takes torch from this package index.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v wrk >/dev/null || { echo "error: wrk is not installed; it drives the load" >&2; echo "hint: apt-get install wrk" >&2; exit 1; }
[ -x .venv-peers/bin/python ] || "${PYTHON:-python3}" -m venv .venv-peers
.venv-peers/bin/pip install --quiet ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"
.venv-peers/bin/pip install --quiet -r benchmarks/serve/peers.txt
# for Triton's server and its native Python backend, which are inside of this wheel; pytriton itself is not used
.venv-peers/bin/pip install --quiet --no-deps nvidia-pytriton==0.7.0
# its Python knows numpy 1 alone: an environment of its own, with all else from the other one
"${PYTHON:-python3}" -m venv --without-pip .venv-peers/triton
triton=$(echo "$PWD"/.venv-peers/triton/lib/python3*/site-packages)
.venv-peers/bin/pip install --quiet --no-deps --upgrade --target "$triton" numpy==1.26.4
echo "$PWD"/.venv-peers/lib/python3*/site-packages > "$triton/peers.pth"
ldconfig -p | grep -q libpython3 || echo "note: Triton needs the system's libpython3; apt-get install libpython3-dev" >&2
echo "ready: .venv-peers"
