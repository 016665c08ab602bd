#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run hf-mem on a directory: its requests to the hub are answered from there, byte ranges included.

    hf_mem_offline.py DIRECTORY [OPTION of hf-mem...]

hf-mem names the hub's address itself, so its client's transport is replaced, and nothing else of it. Runs in the peers'
environment.
"""

import importlib
import os
import re
import sys

import httpx2
from hf_mem import cli

REPOSITORY = "local/model"


def answer(root: str, request: httpx2.Request) -> httpx2.Response:
    """Answer as the hub does: the list of files, and files or parts of them."""
    path = request.url.path
    if re.fullmatch(r"/api/models/%s/tree/[^/]+" % REPOSITORY, path):
        names = sorted(os.listdir(root))
        listed = [{"type": "file", "path": name, "size": os.path.getsize(os.path.join(root, name))} for name in names]
        return httpx2.Response(200, json=listed)
    match = re.fullmatch(r"/%s/resolve/[^/]+/([\w.-]+)" % REPOSITORY, path)
    file = os.path.join(root, match.group(1)) if match else ""
    if not os.path.isfile(file):
        return httpx2.Response(404, json={"error": "no %s" % path})
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
    with open(file, "rb") as handle:
        if not wanted:
            return httpx2.Response(200, content=handle.read())
        first, last = int(wanted.group(1)), int(wanted.group(2))
        handle.seek(first)
        return httpx2.Response(206, content=handle.read(last - first + 1))


def main() -> None:
    root = os.path.abspath(sys.argv[1])
    kind = httpx2.AsyncClient

    class Client(kind):  # type: ignore[misc,valid-type]
        def __init__(self, **options: object) -> None:
            options.update(transport=httpx2.MockTransport(lambda request: answer(root, request)), http2=False)
            super().__init__(**options)

    importlib.import_module("hf_mem.run").httpx2.AsyncClient = Client
    sys.argv = ["hf-mem", "--model-id", REPOSITORY, *sys.argv[2:]]
    cli.main()


if __name__ == "__main__":
    main()
