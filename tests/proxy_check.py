# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tests/proxy_cases.yml and the cases about time against one endpoint, and prints a line for each.

The endpoint comes from the variables of ``make demo-env``: GPUFLEET_URL, GPUFLEET_CA, GPUFLEET_CERT, GPUFLEET_KEY,
GPUFLEET_API_KEY, GPUFLEET_MODEL. Optional: GPUFLEET_OTHER_CERT, _OTHER_KEY, _OTHER_API_KEY (a second client),
GPUFLEET_REVOKED_CERT, _REVOKED_KEY, GPUFLEET_CA_KEY with GPUFLEET_CA_PASSPHRASE_FILE (to sign an expired certificate
and one for servers). API keys are given as they are, or as ``@path``. ``--only NAME`` runs one case, ``--no-time``
leaves the cases about time out. Exit status 1 if a case did not hold, or none ran.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import re
import socket
import ssl
import sys
import tempfile
import time
import typing as t
import urllib.parse

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CASES = pathlib.Path(__file__).with_name("proxy_cases.yml")
Pair = t.Tuple[str, str]


class Missing(Exception):
    """The environment doesn't give what a case needs."""


class Answer(t.NamedTuple):
    """An answer; ``arrivals``: seconds after the request was sent, and the bytes that came then."""

    status: int
    headers: t.Dict[str, str]
    body: bytes
    arrivals: t.List[t.Tuple[float, bytes]]

    @property
    def code(self) -> str:
        try:
            return str(json.loads(self.body)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return ""


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
        if kind in ("own", "other", "revoked"):
            stem = "GPUFLEET_" if kind == "own" else "GPUFLEET_%s_" % kind.upper()
            return self.variable(stem + "CERT"), self.variable(stem + "KEY")
        if kind not in self.made:
            self.made[kind] = self.make(kind)
        return self.made[kind]

    def make(self, kind: str) -> Pair:
        """Make a pair that must be refused; the subject is always our own client's."""
        own = x509.load_pem_x509_certificate(pathlib.Path(self.variable("GPUFLEET_CERT")).read_bytes())
        authority = x509.load_pem_x509_certificate(pathlib.Path(self.variable("GPUFLEET_CA")).read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        signer, issuer = ec.generate_private_key(ec.SECP256R1()), authority.subject
        if kind == "self_signed":
            signer, issuer = key, own.subject
        elif kind == "foreign":
            issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else's CA")])
        elif kind in ("expired", "server_usage"):
            secret = pathlib.Path(self.variable("GPUFLEET_CA_PASSPHRASE_FILE")).read_bytes().strip()
            loaded = serialization.load_pem_private_key(
                pathlib.Path(self.variable("GPUFLEET_CA_KEY")).read_bytes(), secret
            )
            assert isinstance(loaded, ec.EllipticCurvePrivateKey)
            signer = loaded
        now = datetime.datetime.now(datetime.timezone.utc)
        end = now - datetime.timedelta(hours=1) if kind == "expired" else now + datetime.timedelta(days=1)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if kind == "server_usage" else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = (
            x509.CertificateBuilder()
            .subject_name(own.subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(end)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        paths = (self.directory / (kind + ".crt"), self.directory / (kind + ".key"))
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(paths[0]), str(paths[1])

    def api_key(self, kind: str) -> str:
        if kind == "other":
            return key_value(self.variable("GPUFLEET_OTHER_API_KEY"))
        return {
            "own": self.key,
            "none": "",
            "wrong": "sk-" + "0" * 64,
            "upper_case": self.key.upper(),
            "digest": hashlib.sha256(self.key.encode()).hexdigest(),
            "shortened": self.key[:-1],
            "lengthened": self.key + "0",
        }[kind]

    def connect(self, certificate: str = "own", plain: bool = False) -> socket.socket:
        raw = socket.create_connection((self.host, self.port), 10)
        if plain:
            return raw
        context = ssl.create_default_context(cafile=self.variable("GPUFLEET_CA"))
        pair = self.pair(certificate)
        if pair is not None:
            context.load_cert_chain(*pair)
        return context.wrap_socket(raw, server_hostname=self.host)

    def request(self, case: t.Mapping[str, t.Any]) -> bytes:
        """Return a case's request, byte by byte as it's stated."""

        def fill(text: str) -> str:
            return text.replace("{key}", self.key).replace("{model}", self.environment.get("GPUFLEET_MODEL", ""))

        lines = ["%s %s HTTP/1.1" % (case.get("method", "GET"), fill(case["path"]))]
        lines.append("Host: %s" % case.get("host", self.host))
        key = self.api_key(case.get("key", "own"))
        if "authorization" in case:
            lines.append("Authorization: %s" % fill(case["authorization"]))
        elif key:
            lines.append("Authorization: Bearer %s" % key)
        lines.extend(fill(header) for header in case.get("headers", []))
        if case.get("header_bytes"):
            lines.append("X-Long: %s" % ("x" * case["header_bytes"]))
        body = case.get("body", "").encode()
        if "json" in case:
            body = fill(json.dumps(case["json"])).encode()
        if "json" in case or case.get("body_bytes"):
            lines.append("Content-Type: application/json")
            lines.append("Content-Length: %d" % (case.get("body_bytes") or len(body)))
        lines.append("Connection: %s" % case.get("connection", "close"))
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body

    def send(self, case: t.Mapping[str, t.Any]) -> Answer:
        with self.connect(case.get("certificate", "own"), bool(case.get("plain"))) as connection:
            return exchange(connection, self.request(case))


def exchange(connection: socket.socket, request: bytes) -> Answer:
    """Send a request and read to the end of the connection or of the answer."""
    started = time.monotonic()
    connection.sendall(request)
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
    head, _separator, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if not re.match(r"HTTP/1\.[01] \d{3}", lines[0]):
        return Answer(0, {}, received, arrivals)
    headers = {name.lower(): value for name, _s, value in (line.partition(": ") for line in lines[1:])}
    return Answer(int(lines[0].split(" ")[1]), headers, body, arrivals)


def complete(received: bytes) -> bool:
    """Say whether an answer has come in full, by its length or its last chunk."""
    head, separator, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    if not separator:
        return False
    if length:
        return len(body) >= int(length.group(1))
    return b"transfer-encoding: chunked" in head.lower() and body.endswith(b"0\r\n\r\n")


def judge(expect: t.Mapping[str, t.Any], answer: Answer) -> str:
    """Return what is wrong with an answer, or an empty string."""
    statuses = expect["status"] if isinstance(expect["status"], list) else [expect["status"]]
    if answer.status not in statuses:
        return "status %s, expected %s: %r" % (answer.status, statuses, answer.body[:120])
    if "code" in expect and answer.code != expect["code"]:
        return "code %r, expected %r: %r" % (answer.code, expect["code"], answer.body[:120])
    for name, value in expect.get("header", {}).items():
        if answer.headers.get(name) != value:
            return "header %s is %r, expected %r" % (name, answer.headers.get(name), value)
    if answer.status in (401, 404, 405, 413, 421, 429, 503) and "x-request-id" not in answer.headers:
        return "no X-Request-Id"
    if "nginx/" in answer.headers.get("server", ""):
        return "the server tells its version"
    return ""


def stream(endpoint: Endpoint, tokens: int = 25) -> str:
    """A stream comes token by token, the first one early."""
    asked = {"model": "{model}", "prompt": "Once upon a time", "max_tokens": tokens, "stream": True, "ignore_eos": True}
    answer = endpoint.send({"method": "POST", "path": "/v1/completions", "json": asked})
    times = [when for when, data in answer.arrivals if b"data: {" in data]
    if answer.status != 200 or b"[DONE]" not in answer.body:
        return "status %d, ends with %r" % (answer.status, answer.body[-60:])
    if len(times) < tokens // 2:
        return "%d tokens came in %d pieces" % (tokens, len(times))
    if times[0] > 0.5 * times[-1]:
        return "first token after %.3f s, last after %.3f s" % (times[0], times[-1])
    return ""


def guessing(endpoint: Endpoint) -> str:
    """Guessing keys is limited, and a good client of the same address isn't."""
    wrong = {"path": "/v1/models", "key": "wrong"}
    answers = [endpoint.send(wrong) for _number in range(60)]
    statuses = [answer.status for answer in answers]
    limited = [answer for answer in answers if answer.status == 429]
    if set(statuses) - {401, 429} or not limited:
        return "60 guesses got %s" % {status: statuses.count(status) for status in set(statuses)}
    if limited[0].code != "rate_limit_exceeded" or limited[0].headers.get("retry-after") != "1":
        return "429 without its code or Retry-After: %s %r" % (limited[0].code, limited[0].headers.get("retry-after"))
    good = [endpoint.send({"path": "/v1/models"}).status for _number in range(5)]
    return "" if good == [200] * 5 else "the good client got %s meanwhile" % good


def keep_alive(endpoint: Endpoint) -> str:
    """A connection carries several requests, each judged on its own."""
    with endpoint.connect() as connection:
        kinds = ("own", "wrong", "own")
        case = {"path": "/v1/models", "connection": "keep-alive"}
        got = [exchange(connection, endpoint.request(dict(case, key=kind))).status for kind in kinds]
    return "" if got in ([200, 401, 200], [200, 429, 200]) else "got %s" % got


TIMED: t.Dict[str, t.Callable[[Endpoint], str]] = {
    "stream comes token by token": stream,
    "keep-alive connection": keep_alive,
    "guessing keys": guessing,
}


def run_case(endpoint: Endpoint, case: t.Mapping[str, t.Any]) -> str:
    """Run a case; a limit that the cases before it filled is waited out."""
    for _attempt in range(20):
        answer = endpoint.send(case)
        if answer.status != 429:
            break
        time.sleep(float(answer.headers.get("retry-after", 1)))
    return judge(case["expect"], answer)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the proxy's cases against one endpoint.")
    parser.add_argument("--only", help="name of the one case to run")
    parser.add_argument("--no-time", action="store_true", help="leave the cases about time out")
    arguments = parser.parse_args()
    checks: t.List[t.Tuple[str, t.Callable[[Endpoint], str]]] = [
        (case["name"], lambda endpoint, case=case: run_case(endpoint, case))  # type: ignore[misc]
        for case in yaml.safe_load(CASES.read_text())["cases"]
    ]
    checks += [] if arguments.no_time else list(TIMED.items())
    held = failed = left_out = 0
    with tempfile.TemporaryDirectory() as directory:
        endpoint = Endpoint(os.environ, directory)
        for name, check in checks:
            if arguments.only not in (None, name):
                continue
            try:
                wrong = check(endpoint)
            except Missing as exc:
                left_out += 1
                print("left out  %s: %s" % (name, exc))
                continue
            except OSError as exc:
                wrong = "%s: %s" % (type(exc).__name__, exc)
            held, failed = held + (not wrong), failed + bool(wrong)
            print("%-8s  %s%s" % ("FAILED" if wrong else "ok", name, ": " + wrong if wrong else ""))
    print("%d held, %d failed, %d left out" % (held, failed, left_out))
    return 1 if failed or not held else 0


if __name__ == "__main__":
    sys.exit(main())
