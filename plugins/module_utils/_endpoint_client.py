# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Speak to an endpoint as a client would: one TLS connection per identity, one JSON or SSE request at a time."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import tempfile
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner

BODY_LIMIT = 1024 * 1024
STREAM_LINES_LIMIT = 100000
RETRY_PAUSE_SECONDS = 0.25


class Identity(t.NamedTuple):
    """A client: certificate and key in PEM, and an API key. Each may be empty."""

    certificate: str = ""
    key: str = ""
    api_key: str = ""


class Endpoint(t.NamedTuple):
    """Where to go, and what the server there must be."""

    model: str
    address: str
    port: int
    server_name: str


class Failure(Exception):
    """A request that got no HTTP answer.

    Attributes:
        kind: ``connect`` (no TCP connection), ``server_certificate`` (we refused the server), ``tls`` (the server
            ended the handshake or the connection before any answer), ``timeout``, ``protocol`` (no HTTP).
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__("%s: %s" % (kind, text))
        self.kind = kind


class Answer(t.NamedTuple):
    """An HTTP answer: status, content type, body text."""

    status: int
    content_type: str
    text: str

    def json(self) -> t.Any:
        """Return the body as JSON, None when it isn't."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class Reply(t.NamedTuple):
    """How a streamed request was answered: status, and what a refusal says; its header Retry-After."""

    status: int
    text: str
    retry_after: str


class Stream(t.NamedTuple):
    """A streamed answer: status, text pieces with their arrival in seconds since the request, how it ended."""

    status: int
    pieces: t.List[t.Tuple[float, str]]
    done: bool
    error: str
    total_seconds: float


@contextlib.contextmanager
def secret_file(text: str) -> t.Iterator[str]:
    """Give a path under which a secret can be opened for as long as the context lasts.

    It's memory without a name where the kernel has that; else a file of mode 0600 that's removed at once.
    """
    data = text.encode("utf-8")
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("gpufleet", os.MFD_CLOEXEC)
        try:
            os.write(fd, data)
            yield "/proc/self/fd/%d" % fd
        finally:
            os.close(fd)
        return
    fd, path = tempfile.mkstemp(prefix="gpufleet-")
    try:
        os.write(fd, data)
        os.close(fd)
        yield path
    finally:
        os.unlink(path)


def make_context(ca: str, identity: Identity) -> ssl.SSLContext:
    """Return a context that trusts one CA only, checks the server's name, and shows the identity's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca)
    if identity.certificate:
        with secret_file("%s\n%s\n" % (identity.certificate, identity.key)) as path:
            context.load_cert_chain(path)
    return context


def make_foreign_identity(runner: Runner, common_name: str, api_key: str) -> t.Optional[Identity]:
    """Return an identity whose certificate nobody signed but itself, with the subject of a real client.

    It takes the openssl program, or the cryptography package; None when there is neither.
    """
    directory = tempfile.mkdtemp(prefix="gpufleet-")
    try:
        key = os.path.join(directory, "key")
        certificate = os.path.join(directory, "crt")
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        argv += ["-days", "1", "-subj", "/CN=%s" % common_name, "-keyout", key, "-out", certificate]
        status, _out, _err = runner.run(argv)
        if status == 0:
            with open(key, encoding="ascii") as key_file, open(certificate, encoding="ascii") as certificate_file:
                return Identity(certificate_file.read(), key_file.read(), api_key)
    finally:
        shutil.rmtree(directory)
    return _foreign_by_cryptography(common_name, api_key)


def _foreign_by_cryptography(common_name: str, api_key: str) -> t.Optional[Identity]:
    try:
        import datetime

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError:
        return None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(certificate.public_bytes(serialization.Encoding.PEM).decode(), key_pem.decode(), api_key)


def connect(address: t.Tuple[str, int], within_seconds: float) -> socket.socket:
    """Return a TCP connection; try again until the time is up, for a reload may just be closing the door.

    Raises:
        Failure: kind ``connect``.
    """
    until = time.monotonic() + within_seconds
    while True:
        try:
            return socket.create_connection(address, timeout=max(0.1, until - time.monotonic()))
        except OSError as exc:
            if time.monotonic() + RETRY_PAUSE_SECONDS >= until:
                raise Failure("connect", "%s port %d: %s" % (address[0], address[1], exc)) from exc
        time.sleep(RETRY_PAUSE_SECONDS)


@contextlib.contextmanager
def _failures() -> t.Iterator[None]:
    """Turn what sockets, ssl and http.client raise into Failure."""
    try:
        yield
    except ssl.SSLCertVerificationError as exc:
        raise Failure("server_certificate", exc.verify_message or str(exc)) from exc
    except ssl.SSLError as exc:
        raise Failure("tls", exc.reason or str(exc)) from exc
    except socket.timeout as exc:
        raise Failure("timeout", "no answer in time") from exc
    except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected) as exc:
        raise Failure("tls", "the server closed the connection without an answer") from exc
    except http.client.HTTPException as exc:
        raise Failure("protocol", "%s %s" % (type(exc).__name__, exc)) from exc
    except OSError as exc:
        raise Failure("protocol", str(exc)) from exc


class Connection:
    """One connection to an endpoint, or to a unix socket; requests go over it one after the other."""

    def __init__(self, host: str, raw: socket.socket) -> None:
        self.host = host
        self.raw = raw
        self.tls_version = raw.version() if isinstance(raw, ssl.SSLSocket) else None
        self.http = http.client.HTTPConnection(host)
        self.http.auto_open = 0
        self.http.sock = raw

    @classmethod
    def open(cls, endpoint: Endpoint, context: ssl.SSLContext, connect_seconds: float) -> Connection:
        """Connect, shake hands and check the server's name.

        Raises:
            Failure: of any kind but ``protocol``.
        """
        raw = connect((endpoint.address, endpoint.port), connect_seconds)
        raw.settimeout(connect_seconds)
        try:
            with _failures():
                return cls(
                    "%s:%d" % (endpoint.server_name, endpoint.port),
                    context.wrap_socket(raw, server_hostname=endpoint.server_name),
                )
        except Failure:
            raw.close()
            raise

    @classmethod
    def open_unix(cls, path: str, connect_seconds: float) -> Connection:
        """Connect to a unix socket.

        Raises:
            Failure: kind ``connect``.
        """
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        raw.settimeout(connect_seconds)
        try:
            raw.connect(path)
        except OSError as exc:
            raw.close()
            raise Failure("connect", "%s: %s" % (path, exc)) from exc
        return cls("localhost", raw)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.http.close()
        self.raw.close()

    def _send(
        self, method: str, path: str, api_key: str, body: t.Optional[t.Mapping[str, t.Any]], seconds: float
    ) -> http.client.HTTPResponse:
        self.raw.settimeout(seconds)
        headers = {"Host": self.host, "Accept": "application/json, text/event-stream"}
        if api_key:
            headers["Authorization"] = "Bearer %s" % api_key
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode("utf-8")
        try:
            self.http.request(method, path, body=data, headers=headers)
        except (BrokenPipeError, ConnectionResetError):
            # A server may refuse before it has read the request; what it said is still to be read.
            pass
        return self.http.getresponse()

    def ask(
        self,
        method: str,
        path: str,
        *,
        api_key: str = "",
        body: t.Optional[t.Mapping[str, t.Any]] = None,
        seconds: float,
    ) -> Answer:
        """Send one request and read the whole answer.

        Raises:
            Failure: of kind ``tls``, ``timeout`` or ``protocol``.
        """
        with _failures():
            response = self._send(method, path, api_key, body, seconds)
            text = response.read(BODY_LIMIT).decode("utf-8", "replace")
            if not response.isclosed():
                response.close()
                self.http.close()
            return Answer(response.status, response.headers.get_content_type(), text)

    def events(
        self,
        path: str,
        *,
        api_key: str,
        body: t.Mapping[str, t.Any],
        seconds: float,
        each: t.Callable[[float, bytes], None],
    ) -> Reply:
        """Send one request whose answer streams, and hand over each event as it comes.

        Args:
            path, api_key, body: the request.
            seconds: limit of all of it.
            each: called with the seconds since the request and the event's data, ``[DONE]`` included.

        Raises:
            Failure: of kind ``tls``, ``timeout`` or ``protocol``, also when the stream is cut.
        """
        started = time.monotonic()
        with _failures():
            response = self._send("POST", path, api_key, body, seconds)
            if response.status != 200:
                text = response.read(BODY_LIMIT).decode("utf-8", "replace")
                return Reply(response.status, text, str(response.headers.get("Retry-After") or ""))
            for _line in range(STREAM_LINES_LIMIT):
                left = seconds - (time.monotonic() - started)
                if left <= 0:
                    raise Failure("timeout", "the stream didn't end in %s s" % seconds)
                self.raw.settimeout(left)
                line = response.readline(BODY_LIMIT)
                if not line:
                    break
                if line.startswith(b"data:"):
                    each(time.monotonic() - started, line[len(b"data:") :].strip())
        return Reply(200, "", "")

    def stream(self, path: str, *, api_key: str, body: t.Mapping[str, t.Any], seconds: float) -> Stream:
        """Send one chat request that streams, and note when each piece of text arrives.

        Raises:
            Failure: of kind ``tls``, ``timeout`` or ``protocol``, also when the stream is cut.
        """
        started = time.monotonic()
        pieces: t.List[t.Tuple[float, str]] = []
        ends: t.List[bool] = [False]
        errors: t.List[str] = []

        def each(now: float, data: bytes) -> None:
            ends.append(data == b"[DONE]")
            if ends[-1]:
                return
            piece, said = read_event(data)
            if said:
                errors.append(said)
            if piece:
                pieces.append((now, piece))

        reply = self.events(path, api_key=api_key, body=body, seconds=seconds, each=each)
        if reply.status != 200:
            return Stream(reply.status, [], False, reply.text[:300], time.monotonic() - started)
        return Stream(200, pieces, ends[-1], errors[0] if errors else "", time.monotonic() - started)


def read_event(data: bytes) -> t.Tuple[str, str]:
    """Return the text and the error one event of a chat stream carries; both may be empty."""
    try:
        event = json.loads(data.decode("utf-8"))
    except ValueError:
        return "", "an event isn't JSON"
    if not isinstance(event, dict):
        return "", "an event isn't an object"
    if event.get("error"):
        return "", "the stream carries an error: %s" % str(event["error"])[:200]
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "", ""
    content = (choices[0].get("delta") or {}).get("content")
    return (content, "") if isinstance(content, str) else ("", "")
