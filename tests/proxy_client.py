# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A caller of the proxy that may do everything wrong: it writes requests byte by byte, and reads what comes back."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import socket
import ssl
import time
import typing as t
import urllib.parse

import proxy_credentials
from cryptography import x509
from proxy_credentials import Missing, Pair

Case = t.Mapping[str, t.Any]
MADE_KEYS: t.Dict[str, t.Callable[[str], str]] = {
    "own": lambda key: key,
    "none": lambda key: "",
    "wrong": lambda key: "sk-" + "0" * 64,
    "upper_case": str.upper,
    "digest": lambda key: hashlib.sha256(key.encode()).hexdigest(),
    "digest_of_digest": lambda key: hashlib.sha256(hashlib.sha256(key.encode()).hexdigest().encode()).hexdigest(),
    "shortened": lambda key: key[:-1],
    "lengthened": lambda key: key + "0",
    "first_half": lambda key: key[: len(key) // 2],
    "without_prefix": lambda key: key[3:],
    "reversed": lambda key: key[::-1],
    "last_changed": lambda key: key[:-1] + ("0" if key[-1] != "0" else "1"),
}


class Answer(t.NamedTuple):
    """An answer; ``arrivals``: seconds after the request was sent, and the bytes that came then."""

    status: int
    headers: t.Dict[str, str]
    body: bytes
    arrivals: t.List[t.Tuple[float, bytes]]

    @property
    def error(self) -> t.Dict[str, t.Any]:
        """The error of the JSON body, empty if there is none."""
        try:
            return dict(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return {}

    @property
    def code(self) -> str:
        return str(self.error.get("code", ""))


def key_value(text: str) -> str:
    """Return a key given as it is or as @path."""
    return pathlib.Path(text[1:]).read_text().strip() if text.startswith("@") else text


class Endpoint:
    """The proxy under test and everything a caller may hold."""

    def __init__(self, environment: t.Mapping[str, str], directory: str) -> None:
        self.environment = environment
        self.directory = pathlib.Path(directory)
        url = urllib.parse.urlsplit(self.variable("GPUFLEET_URL"))
        self.host, self.port = url.hostname or "localhost", url.port or 443
        self.key = key_value(self.variable("GPUFLEET_API_KEY"))
        self.made: t.Dict[str, Pair] = {}

    def variable(self, name: str) -> str:
        value = self.environment.get(name)
        if not value:
            raise Missing("%s isn't set" % name)
        return value

    def pair(self, kind: str) -> t.Optional[Pair]:
        if kind == "none":
            return None
        if kind in ("own", "other", "revoked", "admin"):
            stem = "GPUFLEET_" if kind == "own" else "GPUFLEET_%s_" % kind.upper()
            return self.variable(stem + "CERT"), self.variable(stem + "KEY")
        if kind not in self.made:
            self.made[kind] = proxy_credentials.make_certificate(
                kind,
                x509.load_pem_x509_certificate(pathlib.Path(self.variable("GPUFLEET_CERT")).read_bytes()),
                x509.load_pem_x509_certificate(pathlib.Path(self.variable("GPUFLEET_CA")).read_bytes()),
                lambda: proxy_credentials.load_authority(
                    self.variable("GPUFLEET_CA_KEY"), self.variable("GPUFLEET_CA_PASSPHRASE_FILE")
                ),
                self.directory,
            )
        return self.made[kind]

    def api_key(self, kind: str) -> str:
        if kind == "other":
            return key_value(self.variable("GPUFLEET_OTHER_API_KEY"))
        return MADE_KEYS[kind](self.key)

    def token(self, asked: Case) -> str:
        claims = {
            "iss": self.variable("GPUFLEET_JWT_ISSUER"),
            "aud": self.variable("GPUFLEET_JWT_AUDIENCE"),
            "sub": self.variable("GPUFLEET_JWT_SUBJECT"),
        }
        return proxy_credentials.make_token(asked, claims, pathlib.Path(self.variable("GPUFLEET_JWT_KEYS")))

    def connect(self, certificate: str = "own", case: t.Optional[Case] = None) -> socket.socket:
        """Return a connection; the case says what is special: ``plain``, ``listener``, ``tls`` (version), ``sni``."""
        case = case or {}
        port = self.port
        if case.get("listener") == "admin":
            port = urllib.parse.urlsplit(self.variable("GPUFLEET_ADMIN_URL")).port or 443
        raw = socket.create_connection((self.host, port), 10)
        if case.get("plain"):
            return raw
        context = ssl.create_default_context(cafile=self.variable("GPUFLEET_CA"))
        if "tls" in case:
            context.minimum_version = context.maximum_version = ssl.TLSVersion[case["tls"]]
            context.set_ciphers("ALL:@SECLEVEL=0")
        if "ciphers" in case:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(case["ciphers"])
        if "alpn" in case:
            context.set_alpn_protocols(case["alpn"])
        if "sni" in case:
            context.check_hostname = False
        pair = self.pair(certificate)
        if pair is not None:
            context.load_cert_chain(*pair)
        try:
            return context.wrap_socket(raw, server_hostname=case.get("sni", self.host) or None)
        except OSError:
            raw.close()
            raise

    def fill(self, text: str) -> str:
        """Put in what only the environment knows."""
        text = text.replace("{key}", self.key).replace("{model}", self.environment.get("GPUFLEET_MODEL", ""))
        return text.replace("{host}", self.host).replace("{port}", str(self.port))

    def request(self, case: Case) -> bytes:
        """Return a case's request, byte by byte as it's stated."""
        if "raw" in case:
            return self.fill(case["raw"]).encode("latin-1")
        lines = ["%s %s %s" % (case.get("method", "GET"), self.fill(case["path"]), case.get("version", "HTTP/1.1"))]
        lines.extend("Host: %s" % self.fill(host) for host in case.get("hosts", [case.get("host", self.host)]))
        if "authorization" in case:
            lines.append("Authorization: %s" % self.fill(case["authorization"]))
        elif "token" in case:
            lines.append("Authorization: Bearer %s" % self.token(case["token"]))
        elif self.api_key(case.get("key", "own")):
            lines.append("Authorization: Bearer %s" % self.api_key(case.get("key", "own")))
        lines.extend(self.fill(header) for header in case.get("headers", []))
        lines.extend("X-Filler-%d: x" % number for number in range(case.get("header_count", 0)))
        if case.get("header_bytes"):
            lines.append("X-Long: %s" % ("x" * case["header_bytes"]))
        body = self.fill(case.get("body", "")).encode("latin-1")
        if "json" in case:
            body = self.fill(json.dumps(case["json"])).encode()
        if case.get("body_bytes"):
            body = b" " * case.get("body_sent_bytes", 0)
        if "json" in case or case.get("body_bytes"):
            lines.append("Content-Type: application/json")
            lines.append("Content-Length: %d" % (case.get("body_bytes") or len(body)))
        lines.append("Connection: %s" % case.get("connection", "close"))
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body

    def send(self, case: Case) -> Answer:
        with self.connect(case.get("certificate", "own"), case) as connection:
            return exchange(connection, self.request(case))

    def send_raw(self, case: Case) -> t.List[Answer]:
        """Send a case's bytes and return every answer that comes until the connection ends or is silent for 2 s."""
        with self.connect(case.get("certificate", "own"), case) as connection:
            connection.sendall(self.request(case))
            connection.settimeout(case.get("silence_seconds", 2))
            received = b""
            while len(received) < 1 << 20:
                try:
                    data = connection.recv(65536)
                except OSError:
                    break
                if not data:
                    break
                received += data
        return split_answers(received)


def split_answers(received: bytes) -> t.List[Answer]:
    """Return the answers that follow each other on a connection."""
    answers: t.List[Answer] = []
    while received:
        head, separator, rest = received.partition(b"\r\n\r\n")
        one = parse(received)
        answers.append(one)
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if not separator or one.status == 0:
            break
        if length:
            size = int(length.group(1))
        elif b"transfer-encoding: chunked" in head.lower():
            size = rest.find(b"0\r\n\r\n") + 5
        else:
            size = 0
        received = rest[size:]
        answers[-1] = one._replace(body=rest[:size])
    return answers


def parse(received: bytes, arrivals: t.Sequence[t.Tuple[float, bytes]] = ()) -> Answer:
    """Return an answer read to its end, without interim ones before it; status 0 for what isn't one."""
    received = re.sub(rb"^(HTTP/1\.1 1\d\d [^\r]*\r\n\r\n)+", b"", received)
    head, _separator, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if not re.match(r"HTTP/1\.[01] \d{3}", lines[0]):
        return Answer(0, {}, received, list(arrivals))
    headers = {name.lower(): value for name, _s, value in (line.partition(": ") for line in lines[1:])}
    return Answer(int(lines[0].split(" ")[1]), headers, body, list(arrivals))


def exchange(connection: socket.socket, request: bytes) -> Answer:
    """Send a request and read to the end of the connection or of the answer."""
    started = time.monotonic()
    try:
        connection.sendall(request)
    except (ConnectionError, ssl.SSLError):
        pass  # an answer may have come before all was sent
    connection.settimeout(30)
    received, arrivals = b"", []
    while not complete(received):
        try:
            data = connection.recv(65536)
        except (ConnectionError, ssl.SSLEOFError):
            break
        if not data:
            break
        arrivals.append((time.monotonic() - started, data))
        received += data
    return parse(received, arrivals)


def complete(received: bytes) -> bool:
    """Say whether an answer has come in full, by its length or its last chunk."""
    received = re.sub(rb"^(HTTP/1\.1 1\d\d [^\r]*\r\n\r\n)+", b"", received)
    head, separator, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    if not separator:
        return False
    if length:
        return len(body) >= int(length.group(1))
    return b"transfer-encoding: chunked" in head.lower() and body.endswith(b"0\r\n\r\n")
