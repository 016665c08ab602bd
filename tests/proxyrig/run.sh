#!/usr/bin/env bash
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs one of the proxy's trials where it can break nothing: namespaces of its own for network, mounts and processes.
#
#   tests/proxyrig/run.sh MODULE [ARGUMENT...]     e.g. run.sh proxyrig.zero_loss --seconds 60
#
# PROXY_SUITE: bookworm (default) or trixie, whose nginx is taken. PROXY_TREE: the tree whose role is rendered (this one).
# PROXY_REALTIME=1: real-time scheduling (chrt --rr 1), so that whatever else runs here doesn't take part in what is measured.
# Debian's packages are unpacked once on top of the lab's base system, the tools come once from requirements/proxy-tools-*.txt;
# both into .cache/proxyrig. Nothing is installed on this machine. When the trial ends, however it ends, all of it is gone:
# its processes with their namespace, its mounts with theirs.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
suite=${PROXY_SUITE:-bookworm}
cache=$root/.cache/proxyrig
packages=(nginx libnginx-mod-http-js haproxy apache2-utils wrk slowhttptest testssl.sh bsdextrautils dnsutils)

say() { printf '==> %s\n' "$*" >&2; }
stop() { echo "proxyrig: $*" >&2; exit 2; }
[[ $# -ge 1 ]] || { sed -n '5,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $(id -u) = 0 ]] || stop "namespaces need root. Remedy: run it as root"

"$root/tools/bootstrap.sh" dev >&2
base=$(compgen -G "${GPUFLEET_CACHE_DIR:-/var/cache/gpufleet}/bases/$suite-*/root" | head -1 || true)
[[ -n $base ]] || stop "no base system of $suite. Remedy: make molecule SCENARIOS=lab_host, which builds it"

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
tag=$("$root/.venv/bin/python" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
lock=$root/requirements/proxy-tools-$tag.txt
if ! cmp -s "$lock" "$cache/venv/requirements.txt"; then
    say "making .cache/proxyrig/venv from $(basename "$lock"), every file checked against its hash"
    "$root/.venv/bin/python" -m venv --clear "$cache/venv"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$lock" 2>/dev/null
    cp "$lock" "$cache/venv/requirements.txt"
fi
layer=$cache/$suite
if [[ $(cat "$layer/.made" 2>/dev/null || true) != "$base ${packages[*]}" ]]; then
    say "unpacking on top of $suite: ${packages[*]}"
    rm -rf "$layer"
    mkdir -p "$layer"/{upper,work,root}
    unshare --mount --pid --fork --kill-child bash -euc '
        layer=$1 base=$2; shift 2
        mount -t overlay overlay -o "lowerdir=$base,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
        mount -t proc proc "$layer/root/proc"
        mount --rbind /dev "$layer/root/dev"
        cp /etc/resolv.conf "$layer/root/etc/resolv.conf"
        printf "#!/bin/sh\nexit 101\n" >"$layer/root/usr/sbin/policy-rc.d"
        chmod 0755 "$layer/root/usr/sbin/policy-rc.d"
        chroot "$layer/root" apt-get update -q
        DEBIAN_FRONTEND=noninteractive chroot "$layer/root" apt-get install -q -y --no-install-recommends "$@"
        chroot "$layer/root" groupadd --force --system gpufleet
        chroot "$layer/root" usermod --append --groups gpufleet www-data
        chroot "$layer/root" apt-get clean' - "$layer" "$base" "${packages[@]}" >"$layer/log" 2>&1 ||
        stop "that failed; its log: $layer/log"
    echo "$base ${packages[*]}" >"$layer/.made"
fi
flock -u 9

# The system: the base, the packages on top of it, and on top of these memory, which takes what the trial writes.
priority=()
[[ ${PROXY_REALTIME:-0} != 1 ]] || priority=(chrt --rr 1)
exec "${priority[@]}" unshare --net --mount --pid --fork --kill-child --mount-proc bash -euc '
    place=$1 lower=$2 root=$3; shift 3
    ip link set lo up
    mkdir -p "$place"
    mount -t tmpfs -o size=1g tmpfs "$place"
    mkdir "$place"/{upper,work,root}
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$place/upper,workdir=$place/work" "$place/root"
    mount -t proc proc "$place/root/proc"
    mount --rbind /dev "$place/root/dev"
    mount -t tmpfs tmpfs "$place/root/run"
    mount -t tmpfs tmpfs "$place/root/tmp"
    export PYTHONPATH=$root/tests PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
    exec "$root/.cache/proxyrig/venv/bin/python" -m "$@"' - /run/proxyrig "$layer/upper:$base" "$root" "$@"
