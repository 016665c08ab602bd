# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""One load on an endpoint: so many requests of so many tokens at the same time, and whether they really ran together.

A prompt is a list of token numbers, so its length is exact; each is drawn anew, and no cache of prefixes serves it. An
engine short of KV cache doesn't refuse: it lets requests wait, or takes one's cache away and computes it again later.
Both are seen in when tokens arrive.
"""

from __future__ import annotations

import json
import random
import re
import ssl
import threading
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._endpoint_client import (
    Connection,
    Endpoint,
    Failure,
    Identity,
)

PATH = "/v1/completions"
TOO_LONG = re.compile(r"context length|maximum (?:model )?length|max_model_len|too long|longer than|exceed", re.I)
#: Tokens of the stream that ends first that another may miss before it counts as stalled.
STALLED_TOKENS = 4
#: And how much later it has to end at the least.
STALLED_SECONDS = 0.2
#: Answers of these kinds say something about the endpoint, not about the length that was asked for.
ASIDE = ("limited", "refused", "connect")


class Settings(t.NamedTuple):
    """How to load.

    Attributes:
        connect_seconds: limit of connecting, tries included, and of the handshake.
        request_seconds: limit of one request.
        token_ids: first and last token number of which prompts are made; each vocabulary has them.
        batch_tokens: tokens that the engine computes in one step; decides how long answers have to be to overlap.
        request_extra: further fields of each request.
    """

    connect_seconds: float = 10.0
    request_seconds: float = 300.0
    token_ids: t.Tuple[int, int] = (100, 1000)
    batch_tokens: int = 2048
    request_extra: t.Mapping[str, t.Any] = {"temperature": 0, "ignore_eos": True}


class One(t.NamedTuple):
    """What came of one request; times are seconds since the load began."""

    kind: str  # ok, too_long, truncated, usage, failed, cut, timeout, limited, refused, connect
    detail: str = ""
    arrivals: t.Tuple[float, ...] = ()
    ended: float = 0.0
    retry_after: float = 0.0


class Level(t.NamedTuple):
    """What came of a load."""

    tokens: int  # of each request, prompt and answer
    served: bool
    reason: str  # served, queued, stalled, or the kind of the answer that wasn't ok
    detail: str
    at_once: int  # requests that had a token before any of them was done
    seconds: float
    requests: int
    retry_after: float = 0.0

    def record(self) -> t.Dict[str, t.Any]:
        """Return it as it goes into a receipt."""
        return {
            "tokens": self.tokens,
            "served": self.served,
            "reason": self.reason,
            "detail": self.detail,
            "at_once": self.at_once,
            "seconds": round(self.seconds, 2),
        }


def answer_tokens(tokens: int, concurrency: int, batch_tokens: int) -> int:
    """Return how many of a request's tokens are its answer.

    While the prompts of the others are computed, a request that is done with its own gets a token with each step. The
    answer is longer than that, so that the first isn't done before the last has begun.
    """
    steps = -(-tokens * concurrency // max(1, batch_tokens))
    return max(1, min(16 + steps, tokens // 2))


def make_prompt(chance: random.Random, tokens: int, token_ids: t.Tuple[int, int]) -> t.List[int]:
    """Return a prompt of so many tokens that no other request has."""
    return [chance.randint(*token_ids) for _number in range(tokens)]


def _count(value: t.Any) -> t.Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class Reading:
    """What the events of one stream add up to."""

    def __init__(self, began: float) -> None:
        self.offset = time.monotonic() - began
        self.arrivals: t.List[float] = []
        self.done = False
        self.error = ""
        self.usage: t.Any = None
        self.finish = ""

    def each(self, now: float, data: bytes) -> None:
        """Take one event."""
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = json.loads(data.decode("utf-8"))
        except ValueError:
            self.error = self.error or "an event isn't JSON"
            return
        if not isinstance(event, dict) or event.get("error"):
            self.error = self.error or "the stream carries an error: %s" % str(event)[:200]
            return
        if event.get("usage") is not None:
            self.usage = event["usage"]
        choices = event.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            self.arrivals.append(self.offset + now)
            self.finish = str(choices[0].get("finish_reason") or self.finish)

    def judge(self, prompt: int, answer: int, ended: float) -> One:
        """Return what came of it: whether as much was read and written as was asked for."""

        def one(kind: str, detail: str) -> One:
            return One(kind, detail, tuple(self.arrivals), ended)

        if self.error:
            return one("failed", self.error)
        if not self.done or not self.arrivals:
            return one("cut", "the stream ended without [DONE] after %d events" % len(self.arrivals))
        usage = self.usage if isinstance(self.usage, dict) else {}
        read, written = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        if read is None or written is None:
            return one("usage", "the answer says no usage: what it read isn't known")
        if read < prompt:
            return one("truncated", "%d tokens of a prompt of %d were read" % (read, prompt))
        if written < answer:
            return one("truncated", "%d tokens of an answer of %d were written (%s)" % (written, answer, self.finish))
        if (read, written) != (prompt, answer):
            return one("usage", "usage says %d + %d tokens, %d + %d were sent" % (read, written, prompt, answer))
        if len(self.arrivals) > answer + 2:
            return one("usage", "usage says %d tokens, %d events came" % (answer, len(self.arrivals)))
        return one("ok", "")


def _refusal(status: int, text: str, retry_after: str) -> One:
    """Return what a status other than 200 says."""
    said = "status %d: %s" % (status, " ".join(text.split())[:200])
    if status == 429:
        return One("limited", said, retry_after=float(retry_after) if re.fullmatch(r"\d{1,4}", retry_after) else 1.0)
    if status in (400, 413, 422):
        return One("too_long" if status == 413 or TOO_LONG.search(text) else "refused", said)
    return One("failed" if status >= 500 else "refused", said)


class Loader:
    """Sends loads to one endpoint as one client."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext, identity: Identity, settings: Settings) -> None:
        self.endpoint = endpoint
        self.context = context
        self.identity = identity
        self.settings = settings
        self.chance = random.SystemRandom()

    def one(self, prompt: t.Sequence[int], answer: int, began: float) -> One:
        """Send one request and read it to its end; nothing is raised."""
        body = dict(
            self.settings.request_extra,
            model=self.endpoint.model,
            prompt=list(prompt),
            max_tokens=answer,
            stream=True,
            stream_options={"include_usage": True},
        )
        reading = Reading(began)
        try:
            with Connection.open(self.endpoint, self.context, self.settings.connect_seconds) as connection:
                reading.offset = time.monotonic() - began
                reply = connection.events(
                    PATH,
                    api_key=self.identity.api_key,
                    body=body,
                    seconds=self.settings.request_seconds,
                    each=reading.each,
                )
        except Failure as failure:
            kind = {"connect": "connect", "server_certificate": "connect", "timeout": "timeout"}.get(
                failure.kind, "cut"
            )
            return One(kind, str(failure), tuple(reading.arrivals), time.monotonic() - began)
        if reply.status != 200:
            return _refusal(reply.status, reply.text, reply.retry_after)
        return reading.judge(len(prompt), answer, time.monotonic() - began)

    def alive(self) -> One:
        """Ask for one token."""
        return self.one(make_prompt(self.chance, 1, self.settings.token_ids), 1, time.monotonic())

    def load(self, tokens: int, concurrency: int) -> Level:
        """Send ``concurrency`` requests of ``tokens`` tokens at the same time and return what came of them."""
        answer = answer_tokens(tokens, concurrency, self.settings.batch_tokens)
        prompts = [
            make_prompt(self.chance, max(1, tokens - answer), self.settings.token_ids) for _number in range(concurrency)
        ]
        results: t.List[t.Optional[One]] = [None] * concurrency
        began = time.monotonic()

        def run(index: int) -> None:
            results[index] = self.one(prompts[index], answer, began)

        threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(concurrency)]
        for thread in threads:
            thread.start()
        until = began + self.settings.connect_seconds * 2 + self.settings.request_seconds
        for thread in threads:
            thread.join(max(0.1, until - time.monotonic()))
        late = One("timeout", "no end in %s s" % self.settings.request_seconds)
        return judge(tokens, [one or late for one in results], time.monotonic() - began)


def overlap(ones: t.Sequence[One]) -> int:
    """Return the most requests that were between their first token and their end at the same moment."""
    turns = sorted([(one.arrivals[0], 1) for one in ones if one.arrivals] + [(one.ended, 0) for one in ones])
    most = now = 0
    for _when, begins in turns:
        now += 1 if begins else -1
        most = max(most, now)
    return most


def stalled(ones: t.Sequence[One]) -> int:
    """Return how many requests got no token for a while before the first of them ended: their cache was taken away.

    Such a one goes on when another's cache is free, and then gets its tokens step by step. One whose tokens lay unread
    in its socket, as this side was kept from running, has them all at once; it isn't counted.
    """
    first = min(ones, key=lambda one: one.ended)
    gaps = sorted(later - sooner for sooner, later in zip(first.arrivals, first.arrivals[1:]))
    least = max(STALLED_SECONDS, STALLED_TOKENS * gaps[len(gaps) // 2] if gaps else 0.0)
    count = 0
    for one in ones:
        before = [when for when in one.arrivals if when <= first.ended]
        since = before[-1] if before else 0.0
        missed = sum(1 for when in first.arrivals if since < when <= first.ended)
        count += missed > STALLED_TOKENS and one.ended - first.ended > least
    return count


def judge(tokens: int, ones: t.Sequence[One], seconds: float) -> Level:
    """Return what a load came to, from what came of its requests."""
    bad = [one for one in ones if one.kind != "ok"]
    if bad:
        # What is about the endpoint as such comes first: it says nothing about the length.
        worst = next((one for kind in ASIDE for one in bad if one.kind == kind), bad[0])
        detail = "%d of %d requests: %s" % (sum(one.kind == worst.kind for one in bad), len(ones), worst.detail)
        wait = max(one.retry_after for one in bad)
        return Level(tokens, False, worst.kind, detail, 0, seconds, len(ones), wait)
    together = overlap(ones)
    if together < len(ones):
        detail = "%d of %d ran at once, the others waited" % (together, len(ones))
        return Level(tokens, False, "queued", detail, together, seconds, len(ones))
    idle = stalled(ones)
    if idle:
        detail = "%d of %d lost their cache and were computed again" % (idle, len(ones))
        return Level(tokens, False, "stalled", detail, together - idle, seconds, len(ones))
    return Level(tokens, True, "served", "all ran at once", together, seconds, len(ones))
