#!/usr/bin/env bash
# ansible-test sanity on the built and installed collection, with no ignore list. Usage: tools/sanity.sh [ARGUMENTS]
# Arguments go to "ansible-test sanity", for example "--test validate-modules".
#
# ansible-test wants a real path .../ansible_collections/gpufleet/llm, so it runs on the artefact, installed into a
# temporary directory that is removed afterwards. It looks for interpreters by name (python3.9 ... python3.13) and tests
# the targets' syntax and imports with each that it finds: those of the PATH, and pyenv's own.
#
# ansible-test gets a home of its own below $GPUFLEET_CACHE_DIR, in which its environments are kept; nothing of yours is
# touched. It hides the caller's environment from pip, so pip's settings are written into that home, and removed
# afterwards; and it would fetch the script that puts pip into its environments from a server of Ansible's, so a stand-in
# that uses the interpreter's own pip takes its place. The packages of the tests come from pip's index.
#
# What can't run without more than that, and what becomes of it:
# - pslint needs PowerShell, and is skipped: the collection has no PowerShell.
# - shellcheck needs the program of that name (Debian: shellcheck); ansible-test warns and skips it where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
home=${GPUFLEET_CACHE_DIR:-/var/cache/gpufleet}/ansible-test
trap 'rm -rf "$work" "$home/.config"' EXIT

# pyenv's shims are programs that exist and don't run; its interpreters are the real ones.
path=
IFS=: read -ra places <<<"$PATH"
for place in "${places[@]}"; do
  case $place in
    */shims) ;;
    *) path=$path:$place ;;
  esac
done
for place in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin; do
  if [ -d "$place" ]; then path=$path:$place; fi
done
export PATH=$root/.venv/bin$path

# The tree as it is: what git tracks, and what it neither tracks nor ignores.
touch "$work/ansible.cfg"
mkdir "$work/tree"
git ls-files -z --cached --others --exclude-standard |
  tar --create --null --files-from - --ignore-failed-read 2>"$work/tar.log" | tar --extract --directory "$work/tree"
export ANSIBLE_HOME=$work/home ANSIBLE_COLLECTIONS_PATH=$work/installed ANSIBLE_CONFIG=$work/ansible.cfg
ansible-galaxy collection build --output-path "$work" "$work/tree" >"$work/build.log" || { cat "$work/build.log"; exit 1; }
ansible-galaxy collection install --offline --no-deps --collections-path "$work/installed" "$work"/gpufleet-llm-*.tar.gz \
  >"$work/install.log" || { cat "$work/install.log"; exit 1; }

collection=$work/installed/ansible_collections/gpufleet/llm
if [ -e "$collection/tests/sanity" ]; then
  echo "sanity: found an ignore list in tests/sanity, expected none. Remedy: mend what it ignores." >&2
  exit 1
fi

mkdir -p "$home"
"$root/.venv/bin/python" - "$home" <<'PYTHON'
"""Write the stand-ins for get-pip, and pip's settings, into the home given."""

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from ansible_test._internal.constants import SUPPORTED_PYTHON_VERSIONS
from ansible_test._internal.python_requirements import get_venv_packages

STAND_IN = """\
import subprocess
import sys

# In a process of its own: it turns pip's settings off for all that comes after it.
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"])
wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *wanted]))
"""

home = Path(sys.argv[1])
cache = home / ".ansible/test/cache"
cache.mkdir(parents=True, exist_ok=True)
for python in SUPPORTED_PYTHON_VERSIONS:
    version = get_venv_packages(SimpleNamespace(version=python))["pip"]
    (cache / ("get_pip_%s.py" % version.replace(".", "_"))).write_text(STAND_IN, encoding="utf-8")

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
settings = {}
# Those of the environment (:env:.NAME) count before those of files.
for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
    name, _sep, value = line.partition("=")
    settings[name.rsplit(".", 1)[-1]] = ast.literal_eval(value)
config = home / ".config/pip/pip.conf"
config.parent.mkdir(parents=True, exist_ok=True)
config.touch(mode=0o600)
lines = ["%s = %s" % (name, " ".join(str(value).split())) for name, value in settings.items()]
config.write_text("\n".join(["[global]", *lines, ""]), encoding="utf-8")
PYTHON

cd "$collection"
HOME=$home ansible-test sanity --color no "$@"
