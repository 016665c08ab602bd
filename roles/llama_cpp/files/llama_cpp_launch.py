# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve a GGUF model by llama.cpp's own server, with its key read from a credential file. Managed by Ansible
(gpufleet.llm.llama_cpp).

``llama_cpp_launch.py TREE CONFIG SOCKET``. SIGTERM takes the socket away, so that nothing new is taken, and ends
when what runs has ended, or after the drain time.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
import typing as t

EXIT_CONFIG = 78
SHORTEST_KEY = 32


def refuse(reason: str) -> t.NoReturn:
    """Say why the engine isn't started, and end so that systemd doesn't try again."""
    print(
        "llama_cpp_launch: refused: %s. Remedy: run the playbook again." % reason,
        file=sys.stderr,
        flush=True,
    )
    sys.exit(EXIT_CONFIG)


def read_key() -> str:
    """Return the engine's key; end with EX_CONFIG when there is none that authenticates anybody."""
    path = os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", ""), "api_key")
    try:
        with open(path, encoding="ascii") as handle:
            key = handle.read().strip()
    except (OSError, ValueError) as exc:
        refuse("the credential api_key can't be read: %s" % exc)
    if len(key) < SHORTEST_KEY or len(key.split()) != 1:
        refuse("the credential api_key has %d characters, expected %d or more" % (len(key), SHORTEST_KEY))
    return key


def parameters(library: t.Any, config: t.Mapping[str, t.Any], path: str, key: str) -> t.Any:
    """Return the server's parameters."""
    wanted = library.CommonParams()
    wanted.model.path = config["model_file"]
    wanted.n_ctx = config["context_length"] * config["parallel"]
    wanted.n_parallel = config["parallel"]
    wanted.cpuparams.n_threads = config["threads"]
    wanted.hostnames = [path]
    wanted.api_keys = [key]
    wanted.endpoint_metrics = True
    wanted.endpoint_slots = wanted.endpoint_props = wanted.ui = False
    wanted.offline = True
    return wanted


def running(path: str, key: str) -> int:
    """Return how many requests the server runs or keeps waiting; 0 if it doesn't say."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.settimeout(2)
    connection = http.client.HTTPConnection("localhost")
    try:
        channel.connect(path)
        connection.sock = channel
        connection.request("GET", "/metrics", headers={"Authorization": "Bearer " + key, "Connection": "close"})
        text = connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        channel.close()
    names = ("llamacpp:requests_processing", "llamacpp:requests_deferred")
    return sum(int(float(line.split()[1])) for line in text.splitlines() if line.split(" ")[0] in names)


def drain(path: str, key: str, seconds: float) -> None:
    """Take the socket away and wait until nothing runs."""
    until = time.monotonic() + seconds
    hidden = path + ".draining"
    try:
        os.rename(path, hidden)
    except OSError:
        return
    while time.monotonic() < until and running(hidden, key):
        time.sleep(0.2)


def main() -> None:
    tree, config_path, path = sys.argv[1:4]
    key = read_key()
    with open(config_path, encoding="utf-8") as handle:
        config = json.load(handle)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: over.set())
    sys.path.insert(0, tree)
    import xllamacpp

    server = xllamacpp.Server(parameters(xllamacpp, config, path, key))
    print("llama_cpp_launch: serves %s on %s" % (config["model_file"], server.listening_address), flush=True)
    while not over.wait(3600):
        pass
    drain(path, key, config["drain_seconds"])
    # The server's threads have no orderly end of their own; nothing is left for them to do.
    os._exit(0)


if __name__ == "__main__":
    main()
