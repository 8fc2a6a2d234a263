#!/usr/bin/env bash
# Makes .venv from nothing and installs emberline with everything it needs; does nothing when that is already done.
#   TORCH_INDEX=URL   take torch from this package index instead of the default one (another CUDA, CPU only)
#   --tests           also what some tests use: a browser for the dashboard's page
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=.venv
STAMP=$VENV/.emberline-setup
LOG=$VENV/setup.log

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

# Installs Debian packages where this user may; the caller looks afterwards whether what it wanted is there.
apt_install() {
    may_install || return 0
    say "installing $* with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq </dev/null || true      # a stale list may still do
    as_root apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null || true
}

has_gxx() { command -v g++ >/dev/null; }
has_venv() { "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; }
has_browser() { command -v chromium >/dev/null || command -v google-chrome >/dev/null; }

command -v "$PYTHON" >/dev/null || fail "$PYTHON is not installed" "install Python 3.11 or later, or name one: make setup PYTHON=/path/to/python3.11"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$PYTHON is $("$PYTHON" -V 2>&1); Python 3.11 or later is required" "make setup PYTHON=/path/to/python3.11"

has_gxx || apt_install g++
if ! has_gxx; then
    say "g++ is missing: compiled packages are left out, and the candidate is ONNX Runtime's int8"
    say "to have it: sudo apt-get install g++"
fi
if [ "${1:-}" = --tests ] && ! has_browser; then
    apt_install chromium
    has_browser || say "chromium is missing: tests of the page in a browser are skipped; to have it: sudo apt-get install chromium"
fi

# The environment holds absolute paths, so where it lies counts as much as what it was made from.
wanted=$({ pwd; "$PYTHON" -V; cat pyproject.toml constraints.txt hatch_build.py scripts/setup.sh; } | sha256sum | cut -d' ' -f1)
done_digest='' done_index=''
[ ! -f "$STAMP" ] || { read -r done_digest && read -r done_index || true; } <"$STAMP"
index=${TORCH_INDEX:-$done_index}
if [ "$done_digest" = "$wanted" ] && [ "$done_index" = "$index" ] && [ -x "$VENV/bin/emberline" ]; then
    exit 0
fi

if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || ! head -n1 "$VENV/bin/pip" | grep -qF "$PWD/"; then
    has_venv || apt_install python3-venv
    has_venv || fail "$PYTHON cannot make virtual environments" "sudo apt-get install python3-venv"
    say "making $VENV with $("$PYTHON" -V)"
    "$PYTHON" -m venv --clear "$VENV"
fi
rm -f "$STAMP"

install() {
    "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@" </dev/null >"$LOG" 2>&1 &
    local pid=$!
    tail -n +1 --pid=$pid -f "$LOG" | sed -un 's/^\(Collecting\|Installing collected\|Building\) \(.\{1,80\}\).*/setup: \1 \2/p'
    wait $pid || { tail -n 20 "$LOG" >&2; fail "pip could not install; all it said is in $LOG" "is the package index reachable?"; }
}

if [ -n "$index" ] && [ "$index" != "$done_index" ]; then
    say "taking torch from $index"
    install --no-deps --force-reinstall --index-url "$index" "$(grep '^torch==' constraints.txt)"
fi
say "installing the packages of constraints.txt (minutes the first time)"
install -c constraints.txt -e '.[onnx,dev]'
printf '%s\n%s\n' "$wanted" "$index" >"$STAMP"
say "done; everything is in $VENV"
