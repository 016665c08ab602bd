#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve a directory of mirrors to lab hosts, for a limited time.

  serve.py --directory DIR --address ADDRESS --state-file FILE [--port N] [--lifetime-seconds N]

Each directory below DIR is a mirror, its URL is ``http://ADDRESS:PORT/<name>``. FILE is JSON: ``{url, port, pid}``; it
appears when the server listens. Requests go to FILE.log.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import threading
import typing as t
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """Serves files; says what was asked in the log file."""

    protocol_version = "HTTP/1.1"
    log_path: t.ClassVar[str] = os.devnull

    def log_message(self, format: str, *args: t.Any) -> None:
        with open(self.log_path, "a", encoding="utf-8") as handle:
            handle.write("%s %s\n" % (self.address_string(), format % args))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state-file", type=Path, required=True)
    parser.add_argument("--lifetime-seconds", type=float, default=7200)
    options = parser.parse_args()
    Handler.log_path = "%s.log" % options.state_file
    handler = functools.partial(Handler, directory=str(options.directory.resolve()))
    with ThreadingHTTPServer((options.address, options.port), handler) as server:
        port = server.server_address[1]
        state = {"url": "http://%s:%d" % (options.address, port), "port": port, "pid": os.getpid()}
        stage = options.state_file.with_name(options.state_file.name + ".new")
        stage.write_text(json.dumps(state))
        stage.rename(options.state_file)
        timer = threading.Timer(options.lifetime_seconds, server.shutdown)
        timer.daemon = True
        timer.start()
        server.serve_forever()


if __name__ == "__main__":
    main()
