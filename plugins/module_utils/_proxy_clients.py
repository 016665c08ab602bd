# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Settles who may call the proxy: names, certificates, keys with their validity, tiers."""

from __future__ import annotations

import calendar
import re
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._proxy_checks import Checks

CLIENT = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
DIGEST = re.compile(r"[0-9a-f]{64}")
SUBJECT = re.compile(r"[\x20-\x7e]{4,512}")
TOKEN_SUBJECT = re.compile(r"[\x21-\x7e]{1,255}")
TIER = re.compile(r"[a-z]([a-z0-9_]{0,30}[a-z0-9])?")
TIME = "%Y-%m-%dT%H:%M:%SZ"
NO_TIME = "-"
STANDARD = "standard"
TIER_LIMITS = {"requests_per_second": 1, "burst_requests": 0, "concurrent_requests": 1}

Mapping = t.Mapping[str, t.Any]


def quote_subject(subject: str) -> str:
    """Return a distinguished name as it stands between double quotes in nginx's configuration."""
    return subject.replace("\\", "\\\\").replace('"', '\\"')


def _time(text: str) -> t.Optional[int]:
    """Return seconds since the epoch of UTC as in RFC 3339, or None for ``-``. Raises ValueError for anything else."""
    return None if text == NO_TIME else calendar.timegm(time.strptime(text, TIME))


def parse_key(text: t.Any) -> t.Optional[t.Dict[str, t.Any]]:
    """Return ``{sha256, not_before, not_after}`` of a key's line, or None where it isn't one.

    The line is ``<digest>``, ``<digest> <end>`` or ``<digest> <begin> <end>``; times are UTC as in RFC 3339,
    ``2026-12-01T00:00:00Z``, or ``-`` for none. Both are returned in seconds since the epoch, or None.
    """
    words = text.split(" ") if isinstance(text, str) else []
    if not 1 <= len(words) <= 3 or not DIGEST.fullmatch(words[0]):
        return None
    try:
        end = _time(words[-1]) if len(words) > 1 else None
        begin = _time(words[1]) if len(words) == 3 else None
    except ValueError:
        return None
    if begin is not None and end is not None and end <= begin:
        return None
    return {"sha256": words[0], "not_before": begin, "not_after": end}


def merge_managed(clients: t.Sequence[Mapping], managed: Mapping, validate_client: str) -> t.List[t.Dict[str, t.Any]]:
    """Return the inventory's clients and those that are kept on the control node only, without the revoked ones.

    What the inventory says about a client goes before what the control node has noted about it. The validating client
    is added by ``plan_clients``, whatever is noted about it.
    """
    named = {client.get("name") for client in clients} | {validate_client}
    merged = [dict(managed.get(str(client.get("name"))) or {}, **client) for client in clients]
    merged += [dict(kept, name=name) for name, kept in sorted(managed.items()) if name not in named]
    return [client for client in merged if client.get("state") != "revoked"]


def plan_tiers(tiers: Mapping, standard: Mapping, checks: Checks) -> t.Dict[str, t.Dict[str, t.Any]]:
    """Return every tier with its limits settled: the standard one, and those that the inventory names."""
    planned: t.Dict[str, t.Dict[str, t.Any]] = {STANDARD: dict(standard)}
    for name, given in tiers.items():
        where = "llm_proxy_tiers, %s" % name
        if not checks.matches("tier", TIER, name, "at most 32 of a-z 0-9 _", "llm_proxy_tiers"):
            continue
        if not isinstance(given, dict) or set(given) - set(TIER_LIMITS):
            checks.refuse(
                "tier",
                "a dictionary of %s" % ", ".join(TIER_LIMITS),
                given,
                "It is in %s." % where,
                "Correct it in llm_proxy_tiers.",
            )
            continue
        planned[name] = dict(standard, **given)
    for name, limits in planned.items():
        for key, low in TIER_LIMITS.items():
            value = limits[key]
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= 100000:
                checks.refuse(
                    "tier_limit",
                    "%d to 100000" % low,
                    value,
                    "It is %s of the tier %s." % (key, name),
                    "Correct it in llm_proxy_tiers.",
                )
    return planned


def _plan_keys(client: Mapping, made: t.Sequence[str], where: str, checks: Checks) -> t.List[t.Dict[str, t.Any]]:
    given = client.get("api_key_sha256", made)
    keys: t.List[t.Dict[str, t.Any]] = []
    for text in [given] if isinstance(given, str) else given:
        key = parse_key(text)
        if key is None:
            checks.refuse(
                "client_digest",
                "64 lower-case hexadecimal digits, then maybe an end, or begin and end, like 2026-12-01T00:00:00Z",
                repr(text),
                "It is in %s." % where,
                "Correct it in %s." % where,
            )
        elif key["sha256"] not in [known["sha256"] for known in keys]:
            keys.append(key)
    return keys


class _Owners:
    """Refuses what two clients would share."""

    def __init__(self, checks: Checks) -> None:
        self.checks = checks
        self.keys: t.Dict[str, str] = {}
        self.tokens: t.Dict[t.Tuple[str, str], str] = {}

    def note(self, client: Mapping) -> None:
        name = client["name"]
        for key in client["api_keys"]:
            if self.keys.setdefault(key["sha256"], name) != name:
                self.checks.refuse(
                    "client_digest",
                    "a key of its own for every client",
                    "one key for %s and %s" % (self.keys[key["sha256"]], name),
                    "They are in llm_proxy_clients.",
                    "Make a new key for one of them.",
                )
        for subject in client["jwt_subjects"]:
            if self.tokens.setdefault((subject, client["subject_dn"]), name) != name:
                self.checks.refuse(
                    "client_jwt_subject",
                    "a subject of its own for every client of one certificate",
                    "%s for %s and %s" % (subject, self.tokens[(subject, client["subject_dn"])], name),
                    "They are in llm_proxy_clients.",
                    "Take it from one of them.",
                )


def plan_clients(
    clients: t.Sequence[Mapping],
    validate_client: str,
    made: Mapping,
    tiers: Mapping,
    check_mode: bool,
    checks: Checks,
) -> t.List[t.Dict[str, t.Any]]:
    """Return the clients with subject, keys, tier and token subjects settled.

    Args:
        made: the lines of ``api_key.sha256`` that llm_pki made, by client.
        tiers: the tiers as ``plan_tiers`` returns them.
    """
    planned: t.List[t.Dict[str, t.Any]] = []
    if not clients:
        checks.refuse(
            "clients",
            "at least one client",
            "none",
            "llm_proxy_clients is empty: nobody could call.",
            "Name a client in gpufleet_clients.",
        )
    wanted = [*clients, {"name": validate_client}] if validate_client else list(clients)
    owners = _Owners(checks)
    names: t.Set[str] = set()
    for client in wanted:
        name = client.get("name")
        where = "llm_proxy_clients, name %r" % (name,)
        if not checks.matches("client_name", CLIENT, name, "at most 63 of a-z 0-9 . _ -", where):
            continue
        name = str(name)
        if name in names:
            checks.refuse(
                "client_name",
                "each name once",
                name,
                "llm_proxy_clients and llm_proxy_validate_client name it.",
                "Leave it out of llm_proxy_clients, or rename it.",
            )
        names.add(name)
        keys = _plan_keys(client, made.get(name) or [], where, checks)
        subjects = [str(subject) for subject in client.get("jwt_subjects") or []]
        for subject in subjects:
            checks.matches("client_jwt_subject", TOKEN_SUBJECT, subject, "1 to 255 printable characters", where)
        if not keys and not subjects and not check_mode:
            checks.refuse(
                "client_digest",
                "at least one SHA-256 digest of an API key",
                "none",
                "It is about %s." % where,
                "Run the role llm_pki before this one (llm_proxy_pki_dir), or state api_key_sha256.",
            )
        certificate = str(client.get("subject_dn") or "CN=%s" % name)
        if not SUBJECT.fullmatch(certificate) or "$" in certificate:
            checks.refuse(
                "client_subject",
                "printable ASCII without $ as `openssl x509 -noout -subject -nameopt RFC2253` prints it",
                repr(certificate),
                "It is in %s." % where,
                "Correct its subject_dn.",
            )
        tier = client.get("tier") or STANDARD
        if tier not in tiers:
            checks.refuse(
                "client_tier",
                "one of %s" % ", ".join(sorted(tiers)),
                repr(tier),
                "It is in %s." % where,
                "Name the tier in llm_proxy_tiers, or correct it.",
            )
        entry = {
            "name": name,
            "subject_dn": certificate,
            "quoted_subject_dn": quote_subject(certificate),
            "api_keys": keys,
            "jwt_subjects": subjects,
            "tier": tier,
        }
        owners.note(entry)
        planned.append(entry)
    return planned
