# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Prove an endpoint: what must be answered is answered, what must be refused is refused."""

from __future__ import annotations

import ssl
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import (
    Answer,
    Connection,
    Endpoint,
    Failure,
    Identity,
    Stream,
    make_context,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding

# Two pieces of text that arrive less than this apart came in one go.
TOGETHER_SECONDS = 0.001
LEAST_PIECES = 4
LEAST_ARRIVALS = 3
PIECES_PER_ARRIVAL = 8
WRONG_KEY = "sk-" + "0" * 64
REDACTED = "(a secret)"

Timings = t.Dict[str, float]


class Settings(t.NamedTuple):
    """How to probe.

    Attributes:
        vantage: from where, ``host`` or ``control``; goes into the names of the checks.
        connect_seconds: limit of connecting, tries included, and of the handshake.
        request_seconds: limit of one request, streamed ones included.
        first_token_limit_seconds: longest time to the first token that is accepted; 0 accepts any.
        prompt: what the model is asked.
        completion_tokens: length of the plain completion.
        stream_tokens: length of the streamed one.
        request_extra: further fields of both requests.
        forbidden: ``METHOD path`` of what must be 404 for an authenticated client.
    """

    vantage: str
    connect_seconds: float
    request_seconds: float
    first_token_limit_seconds: float
    prompt: str
    completion_tokens: int
    stream_tokens: int
    request_extra: t.Mapping[str, t.Any]
    forbidden: t.Sequence[str]


class Probe:
    """The proof of one endpoint; collects findings and timings."""

    def __init__(
        self, endpoint: Endpoint, ca: str, identity: Identity, foreign: t.Optional[Identity], settings: Settings
    ) -> None:
        self.endpoint = endpoint
        self.ca = ca
        self.identity = identity
        self.foreign = foreign
        self.settings = settings
        self.findings: t.List[Finding] = []
        self.timings: Timings = {}
        self.where = "%s on %s port %d (%s), from the %s" % (
            endpoint.model,
            endpoint.address,
            endpoint.port,
            endpoint.server_name,
            {"host": "host itself", "control": "control node"}.get(settings.vantage, settings.vantage),
        )

    def note(self, aspect: str, ok: bool, *, expected: t.Any, found: t.Any, detail: str = "", remedy: str = "") -> None:
        """Add one finding about this endpoint."""
        self.findings.append(
            finding(
                "%s.%s.%s" % (self.settings.vantage, self.endpoint.model, aspect),
                ok,
                expected=redact(expected, self.secrets()),
                found=redact(found, self.secrets()),
                detail=redact(("%s. %s" % (self.where, detail)).strip(), self.secrets()),
                remedy=remedy,
            )
        )

    def secrets(self) -> t.List[str]:
        """Return what must never be in a finding."""
        return [secret for secret in (self.identity.api_key, self.identity.key.strip()) if secret]

    def run(self) -> None:
        """Prove everything. When there is no connection at all, that is the one finding."""
        try:
            context = make_context(self.ca, self.identity)
        except (ssl.SSLError, ValueError, OSError) as exc:
            self.note(
                "identity",
                False,
                expected="a CA, a client certificate and its key",
                found=str(exc),
                remedy="Run the llm_pki role, or set gpu_validate_pki_dir to what it made.",
            )
            return
        try:
            connection = Connection.open(self.endpoint, context, self.settings.connect_seconds)
        except Failure as failure:
            self.note(
                "connect",
                False,
                expected="a TLS connection to a server with a certificate of our CA for %s" % self.endpoint.server_name,
                found=str(failure),
                remedy="See the proxy's unit and its certificate (systemctl status llm-proxy), and what is between.",
            )
            return
        with connection:
            self.note("connect", True, expected="TLS, server certificate of our CA", found=connection.tls_version)
            self.models_list(connection)
        self.completion(context)
        self.streamed(context)
        self.refused("no_certificate", make_context(self.ca, Identity()), self.identity.api_key)
        self.foreign_refused()
        self.refused("no_key", context, "", tls_will_do=False)
        self.refused("wrong_key", context, WRONG_KEY, tls_will_do=False)
        self.forbidden(context)

    # -- what must be answered

    def models_list(self, connection: Connection) -> None:
        """The list of models holds this one."""
        found: t.Any
        try:
            answer = connection.ask(
                "GET", "/v1/models", api_key=self.identity.api_key, seconds=self.settings.request_seconds
            )
            names = model_names(answer)
            found = names if answer.status == 200 else "status %d" % answer.status
            ok = answer.status == 200 and self.endpoint.model in names
        except Failure as failure:
            found, ok = str(failure), False
        self.note(
            "models_list",
            ok,
            expected="GET /v1/models: 200 with %s in it" % self.endpoint.model,
            found=found,
            remedy="See whether the engine serves this name (served-model-name), and whether the proxy's upstream "
            "is that engine.",
        )

    def completion(self, context: ssl.SSLContext) -> None:
        """A completion gives text."""
        body = dict(self.settings.request_extra)
        body.update(model=self.endpoint.model, prompt=self.settings.prompt, max_tokens=self.settings.completion_tokens)
        found: t.Any
        try:
            with Connection.open(self.endpoint, context, self.settings.connect_seconds) as connection:
                answer = connection.ask(
                    "POST",
                    "/v1/completions",
                    api_key=self.identity.api_key,
                    body=body,
                    seconds=self.settings.request_seconds,
                )
            text = completion_text(answer)
            ok = answer.status == 200 and bool(text)
            found = "%d characters of text" % len(text) if ok else "status %d, %s" % (answer.status, answer.text[:300])
        except Failure as failure:
            found, ok = str(failure), False
        self.note(
            "completion",
            ok,
            expected="POST /v1/completions: 200 with text",
            found=found,
            remedy="Read the engine's journal (journalctl -u 'vllm@*'); it lists the model and doesn't compute.",
        )

    def streamed(self, context: ssl.SSLContext) -> None:
        """A chat completion arrives piece by piece and ends with [DONE].

        A prober that was kept from running finds a short stream whole in its socket, and can't tell. So a stream that
        is whole and came too much at once is asked for again, four times as long, twice at most; what buffers, buffers
        then too.
        """
        stream = first = self.ask_stream(context, self.settings.stream_tokens)
        for longer in (4, 16):
            if arrived_in_pieces(stream) or not (stream.done and stream.pieces):
                break
            again = self.ask_stream(context, longer * self.settings.stream_tokens)
            if not again.done:
                break
            stream = again
        self.note_stream(first, stream)

    def ask_stream(self, context: ssl.SSLContext, tokens: int) -> Stream:
        """Return one streamed chat completion; a failure is one without pieces."""
        settings = self.settings
        body = dict(settings.request_extra)
        body.update(
            model=self.endpoint.model,
            messages=[{"role": "user", "content": settings.prompt}],
            max_tokens=tokens,
            stream=True,
        )
        try:
            with Connection.open(self.endpoint, context, settings.connect_seconds) as connection:
                return connection.stream(
                    "/v1/chat/completions", api_key=self.identity.api_key, body=body, seconds=settings.request_seconds
                )
        except Failure as failure:
            return Stream(0, [], False, str(failure), 0.0)

    def note_stream(self, stream: Stream, longest: Stream) -> None:
        """Judge a stream: that the longest came in pieces, how the first ended, and when its first token came."""
        came = "status %d, %d pieces" % (stream.status, len(stream.pieces))
        if stream.error:
            came += ", %s" % stream.error
        self.note(
            "stream_incremental",
            arrived_in_pieces(longest),
            expected="at least %d pieces of text, in at least %d arrivals apart in time"
            % (LEAST_PIECES, needed_arrivals(longest)),
            found="%s in %d arrivals"
            % (
                came if longest is stream else "%d pieces" % len(longest.pieces),
                count_arrivals([at for at, _text in longest.pieces]),
            ),
            detail="POST /v1/chat/completions with stream: true.",
            remedy="If all came at once, something buffers (proxy_buffering); if nothing came, see the engine.",
        )
        self.note(
            "stream_end",
            stream.done and not stream.error,
            expected="data: [DONE] as the last event",
            found="[DONE]" if stream.done and not stream.error else came + ", no [DONE] at the end",
            remedy="A stream that is cut is the engine dying or a timeout of the proxy: read both journals.",
        )
        first = stream.pieces[0][0] if stream.pieces else None
        limit = self.settings.first_token_limit_seconds
        if first is not None:
            self.timings["time_to_first_token_seconds"] = round(first, 4)
            self.timings["stream_total_seconds"] = round(stream.total_seconds, 4)
        self.note(
            "time_to_first_token_seconds",
            first is not None and (not limit or first <= limit),
            expected="measured, at most %s" % limit if limit else "measured",
            found=round(first, 4) if first is not None else None,
            remedy="The host is slower than gpu_validate_first_token_limit_seconds allows, or no token came at all.",
        )

    # -- what must be refused

    def refused(self, aspect: str, context: ssl.SSLContext, api_key: str, tls_will_do: bool = True) -> None:
        """A request with this certificate and key is refused: 401 with JSON, or, for certificates, by TLS itself."""
        try:
            with Connection.open(self.endpoint, context, self.settings.connect_seconds) as connection:
                answer = connection.ask("GET", "/v1/models", api_key=api_key, seconds=self.settings.request_seconds)
            ok = answer.status == 401 and isinstance(answer.json(), dict)
            found = "status %d, %s" % (answer.status, answer.content_type)
        except Failure as failure:
            ok = tls_will_do and failure.kind == "tls"
            found = str(failure)
        self.note(
            "refused_%s" % aspect,
            ok,
            expected="401 with a JSON body%s" % (", or an end of the TLS connection" if tls_will_do else ""),
            found=found,
            detail="GET /v1/models with %s." % aspect.replace("_", " "),
            remedy="Take the host off the network until the proxy refuses this: see ssl_verify_client, the CA file and "
            "the key check in the proxy's configuration.",
        )

    def foreign_refused(self) -> None:
        """A certificate of another issuer is refused, though subject and API key are right."""
        if self.foreign is None:
            self.note(
                "refused_foreign_certificate",
                False,
                expected="a foreign certificate to be refused",
                found="not tried: no foreign certificate could be made",
                remedy="Install openssl where the probe runs.",
            )
            return
        self.refused("foreign_certificate", make_context(self.ca, self.foreign), self.identity.api_key)

    def forbidden(self, context: ssl.SSLContext) -> None:
        """What isn't on the list of paths doesn't exist, not even for an authenticated client."""
        statuses: t.Dict[str, t.Any] = {}
        for entry in self.settings.forbidden:
            method, _space, path = entry.partition(" ")
            body = {"model": self.endpoint.model, "prompt": "x", "max_tokens": 1} if method == "POST" else None
            try:
                with Connection.open(self.endpoint, context, self.settings.connect_seconds) as connection:
                    answer = connection.ask(
                        method, path, api_key=self.identity.api_key, body=body, seconds=self.settings.request_seconds
                    )
                statuses[entry] = answer.status
            except Failure as failure:
                statuses[entry] = str(failure)
        open_paths = {entry: status for entry, status in statuses.items() if status != 404}
        self.note(
            "forbidden_paths",
            bool(statuses) and not open_paths,
            expected="404 for each of %s" % ", ".join(self.settings.forbidden),
            found=open_paths or "404 for each",
            detail="With a good certificate and a good key.",
            remedy="The proxy must pass a list of exact paths and nothing else: some of these answer without any key.",
        )


def model_names(answer: Answer) -> t.List[str]:
    """Return the names in a list of models, empty when it isn't one."""
    data = answer.json()
    entries = data.get("data") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        return []
    return [str(entry.get("id")) for entry in entries if isinstance(entry, dict)]


def completion_text(answer: Answer) -> str:
    """Return the text of a completion, empty when there is none."""
    data = answer.json()
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return ""
    text = choices[0].get("text")
    return text if isinstance(text, str) else ""


def count_arrivals(times: t.Sequence[float], together_seconds: float = TOGETHER_SECONDS) -> int:
    """Return how many times something arrived, counting what came less than ``together_seconds`` apart as once."""
    if not times:
        return 0
    return 1 + sum(1 for before, after in zip(times, times[1:]) if after - before >= together_seconds)


def needed_arrivals(stream: Stream) -> int:
    """Return in how many arrivals a stream must come: eight pieces each at most; a buffer of 4 KiB holds sixteen."""
    return max(LEAST_ARRIVALS, len(stream.pieces) // PIECES_PER_ARRIVAL)


def arrived_in_pieces(stream: Stream) -> bool:
    """Tell whether a stream came piece by piece."""
    return len(stream.pieces) >= LEAST_PIECES and count_arrivals(
        [at for at, _text in stream.pieces]
    ) >= needed_arrivals(stream)


def redact(value: t.Any, secrets: t.Sequence[str]) -> t.Any:
    """Return a value with every secret in its texts replaced."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, REDACTED)
        return value
    if isinstance(value, dict):
        return {redact(k, secrets): redact(v, secrets) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, secrets) for item in value]
    return value


def probe_endpoint(
    endpoint: Endpoint, ca: str, identity: Identity, foreign: t.Optional[Identity], settings: Settings
) -> t.Tuple[t.List[Finding], Timings]:
    """Prove one endpoint.

    Args:
        endpoint: where, and which model.
        ca: PEM of the CA the server's certificate must be of.
        identity: a client that may call.
        foreign: a client that mustn't; None when none could be made, which fails its finding.
        settings: limits and contents.

    Returns:
        Findings, and ``{time_to_first_token_seconds, stream_total_seconds}`` where there was a stream.
    """
    probe = Probe(endpoint, ca, identity, foreign, settings)
    probe.run()
    return probe.findings, probe.timings
