# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small endpoint behind mutual TLS that can misbehave in every way the probe has to notice."""

from __future__ import annotations

import http.server
import json
import pathlib
import ssl
import subprocess
import threading
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import Endpoint, Identity

API_KEY = "sk-" + "5ec2e7" * 10
NAME = "llm1"
PIECES = 8


class Behaviour:
    """What the server does; each test spoils one thing."""

    def __init__(self) -> None:
        self.model = "smollm2"
        self.needs_certificate = True  # answers 401 without one of the CA
        self.needs_key = True
        self.accepts_any_key = False
        self.open_paths: set[str] = set()
        self.refusal_body = '{"error": {"message": "no"}}'
        self.completion_text = " cat"
        self.completion_status = 200
        self.buffers = False
        self.buffers_up_to = 0  # tokens: a prober that was kept from running finds shorter streams whole in its socket
        self.pieces = PIECES
        self.sends_done = True
        self.stream_error = False
        self.echoes_key = False
        self.hangs = False
        self.also_trusts = ""  # PEM


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def log_message(self, *_args: t.Any) -> None:
        pass

    def answer(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refused(self) -> bool:
        b = self.behaviour
        given = self.headers.get("Authorization", "")
        certified = bool(self.connection.getpeercert()) if isinstance(self.connection, ssl.SSLSocket) else True
        key_is_good = given == "Bearer " + API_KEY or (b.accepts_any_key and bool(given))
        if (b.needs_certificate and not certified) or (b.needs_key and not key_is_good):
            self.answer(401, b.refusal_body)
            return True
        return False

    def do_GET(self) -> None:
        if self.refused():
            return
        if self.path == "/v1/models":
            self.answer(200, json.dumps({"data": [{"id": self.behaviour.model}]}))
        elif self.path in self.behaviour.open_paths:
            self.answer(200, "{}")
        else:
            self.answer(404, "{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        b = self.behaviour
        if self.refused():
            return
        if b.hangs:
            time.sleep(2)
        if self.path == "/v1/completions":
            text = self.headers["Authorization"] if b.echoes_key else b.completion_text
            status = 500 if b.echoes_key else b.completion_status
            self.answer(status, json.dumps({"choices": [{"text": text}]}))
        elif self.path == "/v1/chat/completions" and body["stream"]:
            self.stream(body["max_tokens"])
        elif self.path in b.open_paths:
            self.answer(200, "{}")
        else:
            self.answer(404, "{}")

    def stream(self, tokens: int) -> None:
        b = self.behaviour
        buffers = b.buffers or tokens <= b.buffers_up_to
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = ['{"choices": [{"delta": {"role": "assistant", "content": ""}}]}']
        events += ['{"choices": [{"delta": {"content": "w%d "}}]}' % n for n in range(min(b.pieces, tokens))]
        if b.stream_error:
            events.append('{"error": {"message": "EngineDeadError"}}')
        if b.sends_done:
            events.append("[DONE]")
        for event in events:
            time.sleep(0.01)
            if not buffers:
                self.chunk(event)
        if buffers:
            for event in events:
                self.chunk(event)
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, event: str) -> None:
        data = ("data: %s\n\n" % event).encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), type("Bound", (Handler,), {"behaviour": behaviour}))
        self.context = context

    def finish_request(self, request: t.Any, client_address: t.Any) -> None:
        try:
            tls = self.context.wrap_socket(request, server_side=True)
        except (ssl.SSLError, OSError):
            return
        try:
            super().finish_request(tls, client_address)
        finally:
            tls.close()

    def handle_error(self, *_args: t.Any) -> None:
        pass


class Pki(t.NamedTuple):
    ca: str
    server: pathlib.Path
    client: Identity


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_pki(directory: pathlib.Path) -> Pki:
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ca = ["-CA", str(directory / "ca.crt"), "-CAkey", str(directory / "ca.key")]
    openssl("req", "-x509", *new, "-subj", "/CN=CA", "-keyout", f"{directory}/ca.key", "-out", f"{directory}/ca.crt")
    for name, subject, san in (("server", NAME, "DNS:" + NAME), ("client", "gpu-validate", "DNS:client")):
        csr = f"{directory}/{name}.csr"
        extensions = directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={san}\n")
        openssl("req", *new, "-subj", f"/CN={subject}", "-keyout", f"{directory}/{name}.key", "-out", csr)
        openssl("x509", "-req", "-in", csr, *ca, "-extfile", str(extensions), "-out", f"{directory}/{name}.crt")
    both = directory / "server.pem"
    both.write_text((directory / "server.crt").read_text() + (directory / "server.key").read_text())
    client = Identity((directory / "client.crt").read_text(), (directory / "client.key").read_text(), API_KEY)
    return Pki((directory / "ca.crt").read_text(), both, client)


Started = t.Tuple[Endpoint, Behaviour]
Start = t.Callable[..., Started]


def starter(pki: Pki, servers: list[Server]) -> Start:
    """Return a function that starts a server; ``verify`` is what TLS itself does with the client's certificate."""

    def started(verify: ssl.VerifyMode = ssl.CERT_REQUIRED, **changes: t.Any) -> Started:
        behaviour = Behaviour()
        for name, value in changes.items():
            assert hasattr(behaviour, name)
            setattr(behaviour, name, value)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.server)
        context.load_verify_locations(cadata=pki.ca + behaviour.also_trusts)
        context.verify_mode = verify
        server = Server(context, behaviour)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return Endpoint("smollm2", "127.0.0.1", server.server_address[1], NAME), behaviour

    return started
