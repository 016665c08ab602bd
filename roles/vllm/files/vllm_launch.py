# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start `vllm serve` with its key read from a credential file. Managed by Ansible (gpufleet.llm.vllm).

The key is put into this process's own list of arguments, not into those of an exec and not into the environment, so
neither /proc/<pid>/cmdline nor /proc/<pid>/environ ever holds it.
"""

from __future__ import annotations

import os
import sys

EXIT_CONFIG = 78
SHORTEST_KEY = 32


def read_key() -> str:
    """Return the engine's key; end with EX_CONFIG when there is none that authenticates anybody.

    vLLM takes an empty key for no authentication at all.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = os.path.join(directory, "api_key")
    try:
        with open(path, encoding="ascii") as handle:
            key = handle.read().strip()
    except (OSError, ValueError) as exc:
        refuse("the credential api_key can't be read: %s" % exc)
    if not key:
        refuse("the credential api_key is empty; vLLM would serve without authentication")
    if len(key) < SHORTEST_KEY or len(key.split()) != 1:
        refuse(
            "the credential api_key has %d characters, expected %d or more, no white space" % (len(key), SHORTEST_KEY)
        )
    return key


def refuse(reason: str) -> None:
    """Say why the engine isn't started, and end so that systemd doesn't try again."""
    print(
        "vllm_launch: refused: %s. Remedy: run the playbook again; it makes the key." % reason,
        file=sys.stderr,
        flush=True,
    )
    sys.exit(EXIT_CONFIG)


def main() -> None:
    config, uds = sys.argv[1:3]
    key = read_key()
    # Children that are spawned import this file again, under another name, and find nothing to do in it.
    sys.argv = ["vllm", "serve", "--config", config, "--uds", uds, "--api-key", key]
    from vllm.entrypoints.cli.main import main as serve

    sys.exit(serve())


if __name__ == "__main__":
    main()
