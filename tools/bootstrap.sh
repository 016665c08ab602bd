#!/usr/bin/env bash
# Prepares the control node: a virtual environment from a hash-locked list, and the foreign collections.
# Usage: tools/bootstrap.sh control|dev
# Does nothing when what it made last time was made from the same inputs.
set -euo pipefail
cd "$(dirname "$0")/.."
set_name=${1:-control}
case $set_name in control | dev) ;; *)
  echo "bootstrap: expected control or dev, found '$set_name'" >&2
  exit 2
  ;;
esac

say() { printf '==> %s\n' "$*"; }

pick_python() {
  if [ -n "${PYTHON:-}" ]; then
    echo "$PYTHON"
    return
  fi
  for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "bootstrap: no Python 3.11, 3.12 or 3.13 found. Remedy: install one, or name it: make PYTHON=/path/to/python3 ..." >&2
  exit 2
}

# Programs that a minimal Debian lacks, each with the reason for which it is installed.
install_missing() {
  local missing=() reasons=()
  command -v ssh >/dev/null || { missing+=(openssh-client); reasons+=("ssh reaches the hosts"); }
  command -v openssl >/dev/null || { missing+=(openssl); reasons+=("openssl makes the probes' foreign certificates"); }
  command -v curl >/dev/null || { missing+=(curl); reasons+=("curl is what the README calls the endpoint with"); }
  command -v zstd >/dev/null || { missing+=(zstd); reasons+=("zstd packs the engine's archive"); }
  [ -e /usr/lib/x86_64-linux-gnu/libnuma.so.1 ] || [ -e /usr/lib64/libnuma.so.1 ] || [ -e /usr/lib/aarch64-linux-gnu/libnuma.so.1 ] ||
    { missing+=(libnuma1); reasons+=("libnuma1 is loaded by the engine's smoke test"); }
  if [ "$set_name" = dev ]; then
    command -v gcc >/dev/null || { missing+=(gcc); reasons+=("gcc builds the stand-in for NVIDIA's library that the tests load"); }
    command -v gpg >/dev/null || { missing+=(gnupg); reasons+=("gpg signs the mirrors that the tests make"); }
    command -v gpgv >/dev/null || { missing+=(gpgv); reasons+=("gpgv checks our reading of keys against its own"); }
    [ -e /usr/include/stdlib.h ] || { missing+=(libc6-dev); reasons+=("libc6-dev has the headers for that"); }
  fi
  [ ${#missing[@]} = 0 ] && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "bootstrap: missing here: ${missing[*]}. Remedy: install them as root" >&2
    exit 2
  fi
  say "installing with apt-get: ${missing[*]}"
  printf '    %s\n' "${reasons[@]}"
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

python=$(pick_python)
install_missing
tag=$("$python" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
lock=requirements/$set_name-$tag.txt
key=$({ "$python" -c 'import sys; print(sys.version, sys.executable)'; cat "$lock" requirements/collections.txt tools/fetch_collections.py; } | sha256sum | cut -d' ' -f1)

# A development environment contains the control one: it serves both.
if [ "$set_name" = control ] && [ -f .venv/.key-dev ]; then
  exec "$0" dev
fi
if [ -f ".venv/.key-$set_name" ] && [ "$(cat ".venv/.key-$set_name")" = "$key" ]; then
  exit 0
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing python3-venv with apt-get: Debian's python3 comes without the module that makes virtual environments"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "python3-venv"
  else
    echo "bootstrap: $python lacks the venv module. Remedy: apt-get install python3-venv" >&2
    exit 2
  fi
fi

say "making .venv with $python ($tag) from $lock, every file checked against its hash (about a minute)"
rm -f .venv/.key-*
"$python" -m venv --clear .venv
# The lock is complete. Left to resolve extras anew, pip would want versions that came out after it was made.
env -u PYTHONDONTWRITEBYTECODE .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$lock"
.venv/bin/pip --disable-pip-version-check check >/dev/null

say "fetching the foreign collections of requirements.yml (55 MB) and keeping only what is listed there"
.venv/bin/python tools/fetch_collections.py
echo "$key" >".venv/.key-$set_name"
.venv/bin/ansible --version | sed -n 1p
