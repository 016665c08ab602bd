# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""A relay on loopback that adds a client's certificate and key, for a load generator that can have neither.

``vllm bench serve`` speaks TLS without a client certificate, and takes its key from its environment. It gets the
relay's address and a stand-in for the key; the relay speaks mutual TLS to the proxy, and puts the real key and the
proxy's name in place. So no secret is in an argument list or an environment. Who doesn't know the stand-in is refused
by the proxy as ever.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import ssl
import threading
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import Endpoint, Identity, make_context

CHUNK = 65536


def replaced(data: bytes, pairs: t.Sequence[t.Tuple[bytes, bytes]]) -> t.Tuple[bytes, bytes]:
    """Return what may be sent of ``data`` with the first of each pair replaced, and the end that may begin one."""
    for old, new in pairs:
        data = data.replace(old, new)
    longest = max(len(old) for old, _new in pairs)
    for length in range(min(longest - 1, len(data)), 0, -1):
        if any(old.startswith(data[-length:]) for old, _new in pairs):
            return data[:-length], data[-length:]
    return data, b""


def received(server: ssl.SSLSocket) -> t.Iterator[bytes]:
    """Yield what a TLS connection has now, empty at its end; it doesn't wait.

    What made the socket readable may hold nothing for us, a session ticket for one. Waiting for more would keep the
    request from being sent that the server waits for.
    """
    server.settimeout(0.0)
    try:
        while True:
            data = server.recv(CHUNK)
            yield data
            if not data or not server.pending():
                return
    except (ssl.SSLWantReadError, BlockingIOError):
        return
    finally:
        server.settimeout(None)


class Relay:
    """Relays connections for as long as the context lasts."""

    def __init__(self, endpoint: Endpoint, ca: str, identity: Identity, connect_seconds: float = 10.0) -> None:
        self.endpoint = endpoint
        self.context = make_context(ca, identity)
        self.key = identity.api_key.encode()
        self.stand_in = "sk-stand-in-" + secrets.token_hex(24)
        self.connect_seconds = connect_seconds
        self.errors: t.List[str] = []
        self.connections = 0
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.ending = threading.Event()

    def __enter__(self) -> Relay:
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(256)
        self.listener.settimeout(0.2)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.ending.set()
        self.listener.close()

    @property
    def url(self) -> str:
        """Where the load generator goes."""
        return "http://127.0.0.1:%d" % self.listener.getsockname()[1]

    def _accept(self) -> None:
        while not self.ending.is_set():
            try:
                client, _address = self.listener.accept()
            except socket.timeout:
                continue
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.closing(client):
            try:
                raw = socket.create_connection((self.endpoint.address, self.endpoint.port), self.connect_seconds)
                server = self.context.wrap_socket(raw, server_hostname=self.endpoint.server_name)
            except (OSError, ssl.SSLError) as exc:
                self.errors.append(str(exc)[:200])
                return
            with contextlib.closing(server), contextlib.suppress(OSError):
                self._pass_on(client, server)

    def _pass_on(self, client: socket.socket, server: ssl.SSLSocket) -> None:
        """Copy in both directions until one side ends."""
        server.settimeout(None)
        client.settimeout(None)
        kept = b""
        name = "Host: %s:%d" % (self.endpoint.server_name, self.endpoint.port)
        pairs = [
            (self.stand_in.encode(), self.key),
            (b"Host: 127.0.0.1:%d" % self.listener.getsockname()[1], name.encode()),
        ]
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            while not self.ending.is_set():
                for ready, _mask in selector.select(1.0):
                    if ready.fileobj is client:
                        data = client.recv(CHUNK)
                        if not data:
                            return
                        data, kept = replaced(kept + data, pairs)
                        server.sendall(data)
                        continue
                    for data in received(server):
                        if not data:
                            return
                        client.sendall(data)
