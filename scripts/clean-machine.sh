#!/usr/bin/env bash
# Proves the first five minutes: a Debian 12 with nothing but python3, git and make, a fresh clone of HEAD, and make.
#
#   sudo scripts/clean-machine.sh [--keep] [--folder DIR] [--bind PATH]... [--env NAME]... [TARGET]...
#
#   TARGET       make targets, in order; default: demo test
#   --bind PATH  shows a file or folder of this machine, read-only, at the same place (package mirrors, pip.conf, CA files)
#   --env NAME   hands this variable on
#   --folder DIR where the machine is made (default: a new temporary folder)
#   --keep       leaves the machine's folder for a look; a later call with the same --folder uses it again
#
# Needs root and debootstrap. Mounts and processes live in namespaces of their own, so that both end with this script.
set -euo pipefail

if [ "${EMBERLINE_IN_NAMESPACE:-}" != 1 ]; then
    [ "$(id -u)" = 0 ] || { echo "error: a chroot needs root" >&2; echo "hint: sudo $0 $*" >&2; exit 1; }
    command -v debootstrap >/dev/null ||
        { echo "error: debootstrap is not installed" >&2; echo "hint: apt-get install debootstrap" >&2; exit 1; }
    EMBERLINE_IN_NAMESPACE=1 exec unshare --mount --pid --fork --kill-child --propagation private -- "$0" "$@"
fi

repository=$(cd "$(dirname "$0")/.." && pwd)
folder='' keep='' binds=() names=() targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --keep) keep=1 ;;
    --folder) folder=$2; shift ;;
    --bind) binds+=("$2"); shift ;;
    --env) names+=("$2"); shift ;;
    -*) echo "error: $1 is no option; see the head of $0" >&2; exit 2 ;;
    *) targets+=("$1") ;;
    esac
    shift
done
[ ${#targets[@]} -gt 0 ] || targets=(demo test)
[ -n "$folder" ] || folder=$(mktemp -d "${TMPDIR:-/tmp}/emberline-machine.XXXXXX")

finish() {
    code=$?
    grep -oF " $folder/" /proc/self/mounts >/dev/null && umount -R -l "$folder"/{proc,sys,dev} 2>/dev/null
    for path in "${binds[@]}"; do umount -l "$folder$path" 2>/dev/null; done
    if [ -z "$keep" ]; then rm -rf --one-file-system "$folder"; else echo "clean-machine: left in $folder"; fi
    exit $code
}
trap finish EXIT

# The mirror this machine itself is configured with, in either of apt's two notations.
mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | awk '$1 == "deb" {for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) print $i}'
           cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk '$1 == "URIs:" {print $2}'; } | grep -E '/debian/?$' | head -n 1)
[ -n "$mirror" ] || { echo "error: apt's sources name no Debian mirror" >&2; exit 1; }

if [ ! -x "$folder/usr/bin/git" ]; then
    mkdir -p "$folder"
    echo "clean-machine: making a Debian 12 with python3, git and make in $folder"
    debootstrap --variant=minbase --include=python3,git,make,ca-certificates bookworm "$folder" "$mirror" >"$folder/debootstrap.log" 2>&1 ||
        { tail -n 20 "$folder/debootstrap.log" >&2; exit 1; }
fi
cp -L /etc/resolv.conf /etc/hosts "$folder/etc/"
apt-config dump | grep -E '^Acquire::(http|https)::(proxy|Proxy)' >"$folder/etc/apt/apt.conf.d/00proxy" || true
mount -t proc proc "$folder/proc"
mount --rbind -o ro /sys "$folder/sys"
mount --rbind /dev "$folder/dev"
mount -t tmpfs -o size=1g shm "$folder/dev/shm"    # its own: nothing of other processes to be swept
for path in "${binds[@]}"; do
    if [ -d "$path" ]; then mkdir -p "$folder$path"; else mkdir -p "$(dirname "$folder$path")"; touch "$folder$path"; fi
    mount --bind -o ro "$path" "$folder$path"
done

rm -rf "$folder/root/emberline"
git clone --quiet --no-local "$repository" "$folder/root/emberline"

variables=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM="${TERM:-dumb}")
for name in "${names[@]}"; do variables+=("$name=${!name}"); done
for target in "${targets[@]}"; do
    echo "clean-machine: make $target"
    start=$SECONDS
    chroot "$folder" env -i "${variables[@]}" make -C /root/emberline "$target" </dev/null
    echo "clean-machine: make $target took $((SECONDS - start)) s"
done
