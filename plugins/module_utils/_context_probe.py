# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What context_probe does with its arguments: connect, ask how long a request may be, search, decide."""

from __future__ import annotations

import ssl
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _context_search as searching
from ansible_collections.gpufleet.llm.plugins.module_utils._context_load import Loader, Settings
from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import (
    Connection,
    Endpoint,
    Failure,
    Identity,
    make_context,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_probe import redact
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import (
    Finding,
    describe,
    refusal_message,
    refusals,
)

ARGUMENT_SPEC: t.Dict[str, t.Any] = {
    "model": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "server_name": {"type": "str", "required": True},
    "ca": {"type": "str", "required": True},
    "client_certificate": {"type": "str", "required": True},
    "client_key": {"type": "str", "required": True, "no_log": True},
    "client_api_key": {"type": "str", "required": True, "no_log": True},
    "concurrency": {"type": "int", "default": 1},
    "findings": {"type": "list", "elements": "dict", "default": []},
    "planned_tokens": {"type": "int", "no_log": False},
    "engine_tokens": {"type": "int", "no_log": False},
    "previous_tokens": {"type": "int", "no_log": False},
    "longest_request_tokens": {"type": "int", "no_log": False},
    "step_tokens": {"type": "int", "default": 16, "no_log": False},
    "batch_tokens": {"type": "int", "default": 2048, "no_log": False},
    "first_token_id": {"type": "int", "default": 100, "no_log": False},
    "last_token_id": {"type": "int", "default": 1000, "no_log": False},
    "request_extra": {"type": "dict", "default": {"temperature": 0, "ignore_eos": True}},
    "max_requests": {"type": "int", "default": 400},
    "max_seconds": {"type": "float", "default": 900},
    "connect_timeout_seconds": {"type": "float", "default": 10},
    "request_timeout_seconds": {"type": "float", "default": 300},
}


class ProbeError(Exception):
    """There is no measurement.

    Attributes:
        levels: what was measured before, each ``{tokens, served, reason, detail, at_once, seconds}``.
    """

    def __init__(self, text: str, levels: t.Sequence[t.Mapping[str, t.Any]] = ()) -> None:
        super().__init__(text)
        self.levels = [dict(level) for level in levels]


def longest_request(answer: t.Any, model: str) -> t.Optional[int]:
    """Return ``max_model_len`` of a model in the list of models; None: the engine doesn't say."""
    listed = answer.get("data") if isinstance(answer, dict) else None
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict) and one.get("id") == model:
            said = one.get("max_model_len")
            return said if isinstance(said, int) and not isinstance(said, bool) and said > 0 else None
    return None


def ask_longest(loader: Loader) -> int:
    """Return how long a request may be, by the engine's own word.

    Raises:
        ProbeError: it can't be asked, or doesn't say.
    """
    settings = loader.settings
    try:
        with Connection.open(loader.endpoint, loader.context, settings.connect_seconds) as connection:
            answer = connection.ask(
                "GET", "/v1/models", api_key=loader.identity.api_key, seconds=settings.request_seconds
            )
    except Failure as failure:
        raise ProbeError("GET /v1/models: %s. Remedy: %s" % (failure, searching.REMEDIES["connect"])) from failure
    if answer.status != 200:
        remedy = searching.REMEDIES["limited" if answer.status == 429 else "refused"]
        raise ProbeError("GET /v1/models: status %d. Remedy: %s" % (answer.status, remedy))
    said = longest_request(answer.json(), loader.endpoint.model)
    if said is None:
        raise ProbeError(
            "GET /v1/models doesn't say max_model_len of %s. Remedy: give longest_request_tokens."
            % loader.endpoint.model
        )
    return said


def check(params: t.Mapping[str, t.Any]) -> None:
    """Refuse what can't be measured.

    Raises:
        ProbeError: a number that makes no sense.
    """
    for name in ("concurrency", "step_tokens", "batch_tokens", "max_requests", "request_timeout_seconds"):
        if params[name] <= 0:
            raise ProbeError("%s: found %s, expected more than 0." % (name, params[name]))
    if params["max_requests"] < params["concurrency"] + 1:
        raise ProbeError(
            "max_requests: found %d, expected %d at least, one load. Remedy: raise it or lower concurrency."
            % (params["max_requests"], params["concurrency"] + 1)
        )
    if not 0 <= params["first_token_id"] < params["last_token_id"]:
        raise ProbeError("first_token_id, last_token_id: expected two numbers, the second the larger.")


def probe(params: t.Mapping[str, t.Any], say: t.Callable[[str], None]) -> t.Dict[str, t.Any]:
    """Return ``{findings, ok, summary, refusal, measurement}`` of one endpoint.

    Args:
        params: as in :data:`ARGUMENT_SPEC`.
        say: gets a line for each load.

    Raises:
        ProbeError: there is no measurement; the text says why and what to do. No secret is in it.
    """
    check(params)
    identity = Identity(params["client_certificate"], params["client_key"], params["client_api_key"].strip())
    secrets = [secret for secret in (identity.api_key, identity.key.strip()) if secret]
    try:
        context = make_context(params["ca"], identity)
    except (ssl.SSLError, ValueError, OSError) as exc:
        raise ProbeError("No identity: %s. Remedy: run the llm_pki role." % exc) from exc
    endpoint = Endpoint(params["model"], params["address"], params["port"], params["server_name"])
    settings = Settings(
        connect_seconds=params["connect_timeout_seconds"],
        request_seconds=params["request_timeout_seconds"],
        token_ids=(params["first_token_id"], params["last_token_id"]),
        batch_tokens=params["batch_tokens"],
        request_extra=params["request_extra"],
    )
    loader = Loader(endpoint, context, identity, settings)
    ceiling = params["longest_request_tokens"] or ask_longest(loader)
    bounds = searching.Bounds(
        ceiling=ceiling,
        step=params["step_tokens"],
        floor=min(32, ceiling),
        max_requests=params["max_requests"],
        max_seconds=params["max_seconds"],
    )
    planned, engine = params["planned_tokens"], params["engine_tokens"]
    hints = [planned, engine, params["previous_tokens"]]
    if not any(hints):
        hints = [ceiling]
    concurrency = params["concurrency"]
    search = searching.Search(loader, concurrency, bounds, hints, lambda line: say(redact(line, secrets)))
    try:
        found = search.run()
    except searching.Stopped as stopped:
        levels = redact([level.record() for level in stopped.levels], secrets)
        raise ProbeError(redact(str(stopped), secrets), levels) from stopped
    findings = searching.decide(params["model"], concurrency, found, bounds, planned, engine)
    made = searching.measurement(concurrency, found, bounds, planned, engine)
    return dict(verdict(list(params["findings"]) + redact(findings, secrets)), measurement=redact(made, secrets))


def verdict(findings: t.Sequence[Finding]) -> t.Dict[str, t.Any]:
    """Return findings with what they come to: ``{findings, ok, summary, refusal}``."""
    return {
        "findings": list(findings),
        "ok": not refusals(findings),
        "summary": [
            describe(dict(found, remedy="")) if found["ok"] else "NOT: " + describe(found) for found in findings
        ],
        "refusal": refusal_message(findings, "The measured context"),
    }
