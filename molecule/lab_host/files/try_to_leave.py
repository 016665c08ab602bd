#!/usr/bin/python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run inside a lab host as root: fail if anything but the package mirror can be reached.

Usage: try_to_leave.py GATEWAY ADDRESS... where the addresses are the mirror's and the control node's own. On the latter
port 18977 has a server while this runs, on the former port 80.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import socket
import subprocess
import sys

PORTS = (22, 80, 443, 3142, 18977)


def reached(address: str, port: int) -> bool:
    """Say whether a TCP connection comes about; an answer of any kind from a server counts."""
    try:
        with socket.create_connection((address, port), timeout=2):
            return True
    except OSError:
        return False


def proxied(gateway: str, method: str, target: str) -> int:
    """Return the proxy's answer to a request."""
    connection = http.client.HTTPConnection(gateway, 3142, timeout=5)
    connection.putrequest(method, target, skip_host=True)
    connection.putheader("Host", "elsewhere.invalid")
    connection.endheaders()
    return connection.getresponse().status


def main(gateway: str, others: "list[str]") -> "list[str]":
    """Return what could be reached and shouldn't be."""
    wrong = []
    subprocess.run(["ip", "route", "replace", "default", "via", gateway], check=True)
    try:
        places = [(a, p) for a in {gateway, *others} for p in PORTS if (a, p) != (gateway, 3142)]
        with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
            for place, there in zip(places, pool.map(lambda place: reached(*place), places)):
                if there:
                    wrong.append("%s:%d" % place)
    finally:
        subprocess.run(["ip", "route", "delete", "default"], check=True)
    for method, target in (
        ("GET", "http://example.org/"),
        ("GET", "http://%s:22/" % gateway),
        ("GET", "/etc/passwd"),
        ("CONNECT", "example.org:443"),
        ("POST", "http://example.org/"),
    ):
        status = proxied(gateway, method, target)
        if status != 403:
            wrong.append("the proxy answered %s %s with %d" % (method, target, status))
    return wrong


if __name__ == "__main__":
    found = main(sys.argv[1], sys.argv[2:])
    print("\n".join(found) or "nothing was reached")
    sys.exit(1 if found else 0)
