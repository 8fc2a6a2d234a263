#!/usr/bin/env bash
# Makes .venv from nothing and installs emberline with everything it needs; does nothing when that is already done.
#   TORCH_INDEX=URL   take torch from this package index instead of the default one (another CUDA, CPU only)
#   --tests           also what some tests use: every extra that constraints.txt pins, and a browser for the page
set -euo pipefail
cd "$(dirname "$0")/.."

can_die_with_parent() { setpriv --pdeathsig TERM true 2>/dev/null; }

# A make that is killed takes its setup along; a shell's own background job is left alone.
if [ -z "${SETUP_BOUND:-}" ] && [ "$(cat "/proc/$PPID/comm" 2>/dev/null)" = make ] && can_die_with_parent; then
    SETUP_BOUND=1 exec setpriv --pdeathsig TERM scripts/setup.sh "$@"
fi

PYTHON=${PYTHON:-python3}
VENV=.venv
STAMP=$VENV/.emberline-setup
LOG=$VENV/setup.log
BEGAN=$VENV/setup.began
HEARTBEAT_S=${HEARTBEAT_S:-10}
USERS=onnx,search,stacks,dev
TESTERS=gpu,onnx,openvino,search,sketches,spark,stacks,text,tensorboard,mlflow,dev

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

child=''
# Ends what runs in the background, with all that it started: an interrupt first, since pip then puts back what it moved.
stop() {
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$child" ]; then
        kill -INT -- "-$child" 2>/dev/null || true
        for _ in 1 2 3 4 5; do kill -0 -- "-$child" 2>/dev/null || break; sleep 1; done
        kill -KILL -- "-$child" 2>/dev/null || true
        say "stopped; the same command goes on from there"
    fi
    exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM
trap 'stop 129' HUP
trap 'stop $?' EXIT

# One setup at a time; the lock is on this very file, since .venv comes and goes.
alone() {
    command -v flock >/dev/null || return 0
    exec 9<scripts/setup.sh
    flock -n 9 && return 0
    say "another setup is at work here; waiting until it has ended"
    until flock -w 1 9; do :; done                     # in short waits, between which traps run
}

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
    as_root apt-get update -qq </dev/null 9<&- || true      # a stale list may still do
    as_root apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null 9<&- || true
}

has_gxx() { command -v g++ >/dev/null; }
has_venv() { "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; }
has_browser() { command -v chromium >/dev/null || command -v google-chrome >/dev/null; }

command -v "$PYTHON" >/dev/null || fail "$PYTHON is not installed" "install Python 3.11 or later, or name one: make setup PYTHON=/path/to/python3.11"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$PYTHON is $("$PYTHON" -V 2>&1); Python 3.11 or later is required" "make setup PYTHON=/path/to/python3.11"

alone
has_gxx || apt_install g++
command -v curl >/dev/null || apt_install curl   # for the lines that the stack prints
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
done_digest='' done_index='' done_extras=''
[ ! -f "$STAMP" ] || { read -r done_digest && read -r done_index && read -r done_extras || true; } <"$STAMP"
index=${TORCH_INDEX:-$done_index}
extras=$USERS
[ "${1:-}" != --tests ] && [ "$done_extras" != "$TESTERS" ] || extras=$TESTERS     # once there, they are kept
if [ "$done_digest" = "$wanted" ] && [ "$done_index" = "$index" ] && [ "$done_extras" = "$extras" ] &&
    [ -x "$VENV/bin/emberline" ]; then
    exit 0
fi

if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || ! head -n1 "$VENV/bin/pip" | grep -qF "$PWD/"; then
    has_venv || apt_install python3-venv
    has_venv || fail "$PYTHON cannot make virtual environments" "sudo apt-get install python3-venv"
    say "making $VENV with $("$PYTHON" -V)"
    "$PYTHON" -m venv --clear "$VENV"
fi
rm -f "$STAMP"

# Shows what pip's log has that was not shown yet, and every few seconds without that how far it has come.
progress() {
    local lines news
    lines=$(wc -l <"$LOG")
    news=$(sed -n "$((shown + 1)),${lines}s/^\(Collecting\|Building\) \(.*\)/setup: \1 \2/p" "$LOG")
    [ "$lines" -le "$shown" ] || total=$(sed -n 's/^Installing collected packages: //p' "$LOG" | tr ',' '\n' | wc -l)
    shown=$lines
    if [ -n "$news" ]; then
        printf '%s\n' "$news"
        spoke=$SECONDS
    elif [ $((SECONDS - spoke)) -ge "$HEARTBEAT_S" ]; then
        spoke=$SECONDS
        if [ "$total" -gt 0 ]; then
            say "$(find "$VENV" -maxdepth 5 -name '*.dist-info' -newer "$BEGAN" | wc -l) of $total packages installed, $((SECONDS - began)) s"
        else
            say "pip is downloading, $((SECONDS - began)) s"
        fi
    fi
}

install() {
    local began=$SECONDS spoke=$SECONDS shown=0 total=0 bound=()
    ! can_die_with_parent || bound=(setpriv --pdeathsig TERM)
    touch "$BEGAN"
    : >"$LOG"
    set -m                                             # a process group of its own, and one that an interrupt reaches
    "${bound[@]}" "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@" </dev/null >"$LOG" 2>&1 &
    child=$!
    set +m
    while kill -0 "$child" 2>/dev/null; do
        progress
        sleep 1
    done
    local code=0
    wait "$child" || code=$?
    child=''
    [ $code = 0 ] || { tail -n 20 "$LOG" >&2; fail "pip could not install; all it said is in $LOG" "is the package index reachable?"; }
}

if [ -n "$index" ] && [ "$index" != "$done_index" ]; then
    say "taking torch from $index"
    install --no-deps --force-reinstall --index-url "$index" "$(grep '^torch==' constraints.txt)"
fi
say "installing the packages of constraints.txt (minutes the first time)"
install -c constraints.txt -e ".[$extras]"
printf '%s\n%s\n%s\n' "$wanted" "$index" "$extras" >"$STAMP"
say "done; everything is in $VENV"
