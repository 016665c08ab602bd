# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy with the proxy's rules, as far as it has them, and an nginx that only answers: what ours is measured beside.

HAProxy doesn't have: the tokens and the time to the first token in its log, one log line without the client's bytes by
construction, a second engine asked where the first one refused, the whole body read before the engine is asked (its
buffer holds 16 KiB). Everything else in haproxy.cfg is the rule of the same name.
"""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

from proxyrig import rig

PORT = 8444
STATIC_SOCKET, STATIC_PORT = "/run/gpufleet/static/engine.sock", 8081
CONFIG = pathlib.Path(__file__).with_name("haproxy.cfg")
STATIC = """
worker_processes 1;
pid /run/static.pid;
error_log /dev/null;
events { worker_connections 2048; }
http {
    access_log off;
    keepalive_requests 10000000;
    server {
        listen unix:%s;
        listen 127.0.0.1:%d;
        default_type application/json;
        location / { return 200 '{"object":"list","data":[{"id":"mock","object":"model"}]}'; }
    }
}
"""


class Peer:
    """HAProxy behind 127.0.0.1:8444, with the identity of a rig."""

    def __init__(self, proxy: rig.Rig, socket_path: str) -> None:
        self.proxy, self.socket_path = proxy, socket_path
        self.process: t.Optional[subprocess.Popen[bytes]] = None

    def start(self) -> Peer:
        directory = "/srv/haproxy"
        pki = self.proxy.authority.directory
        self.proxy.write(
            directory + "/server.pem", (pki / "server.crt").read_bytes() + (pki / "server.key").read_bytes()
        )
        for name in ("ca.crt", "crl.pem"):
            self.proxy.write(directory + "/" + name, (pki / name).read_bytes())
        lines = [
            "%s:CN=%s %s" % (digest, name, name) for name, all_of in self.proxy.digests.items() for digest in all_of
        ]
        self.proxy.write(directory + "/clients.map", ("\n".join(lines) + "\n").encode())
        config = (
            CONFIG.read_text()
            .replace("@DIR@", directory)
            .replace("@PORT@", str(PORT))
            .replace("@SOCKET@", self.socket_path)
        )
        self.proxy.write(directory + "/haproxy.cfg", config.encode())
        arguments = ["chroot", str(rig.ROOT), "haproxy", "-db", "-f", directory + "/haproxy.cfg"]
        with open(str(rig.ROOT) + "/srv/haproxy/log", "wb") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)
        try:
            rig.wait_for("haproxy's port", lambda: rig.port_open(PORT), 5)
        except TimeoutError:
            raise RuntimeError((rig.ROOT / "srv/haproxy/log").read_text()) from None
        return self

    def pids(self) -> t.List[int]:
        assert self.process is not None
        return [self.process.pid]

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def start_static(proxy: rig.Rig) -> None:
    """Start an engine that does nothing but answer: nginx with one line, on a unix socket and on TCP."""
    proxy.write("/srv/static.conf", (STATIC % (STATIC_SOCKET, STATIC_PORT)).encode())
    (rig.ROOT / STATIC_SOCKET.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    rig.inside("nginx", "-c", "/srv/static.conf")
    rig.inside("chmod", "0666", STATIC_SOCKET)
    rig.wait_for("the static engine's port", lambda: rig.port_open(STATIC_PORT))
