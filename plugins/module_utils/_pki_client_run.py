# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""One run over clients of a certificate directory: lock, finish, decide for all, then do, then the revocation lists."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _pki,
    _pki_clients,
    _pki_files,
    _pki_make,
    _pki_records,
)


def check_request(wanted: _pki_clients.Wanted, names: t.Sequence[str], revoked_clients: t.Sequence[str]) -> None:
    """Refuse what can't be asked for. Raises Refused."""
    reasons = []
    if wanted.action != "list" and not names:
        reasons.append("%s needs the names of clients." % wanted.action)
    reasons += [
        "%r is no name of a client: at most 63 of a-z 0-9 . _ -, beginning and ending with a letter or digit." % name
        for name in names
        if not _pki.CLIENT_NAME.fullmatch(name)
    ]
    reasons += [
        "%s is in llm_pki_revoked_clients. Take it out there to %s it." % (name, wanted.action)
        for name in names
        if wanted.action in ("issue", "rotate") and name in revoked_clients
    ]
    if wanted.keep.total_seconds() < 0 or wanted.pause.total_seconds() < 0:
        reasons.append("Times to keep and to pause are 0 or more.")
    if not wanted.parts:
        reasons.append("There is nothing to rotate: parts is empty.")
    if reasons:
        raise _pki_make.Refused("Refused, nothing was changed: %s" % " ".join(reasons))


def summarise(client: t.Mapping[str, t.Any]) -> str:
    """Return a client's view as one line for a person."""
    keys = [
        "%s %s" % (key["id"], "until %s" % key["end"] if key["end"] else "without an end") for key in client["keys"]
    ]
    certificate = client["certificate"]
    return "%s: %s%s; certificate %s; keys %s" % (
        client["name"],
        client["state"],
        ", tier %s" % client["tier"] if client["tier"] else "",
        "%(serial)s, %(days_left)s days left" % certificate if certificate else "none",
        ", ".join(keys) or "none",
    )


def report(result: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return what a person needs to read of a run. No secret is in it."""
    lines = list(result["summary"]) or ["There are no clients."]
    lines += ["Note: %s." % note for note in (*result["finished"], *result["notes"])]
    lines += ["Hand over: %s" % path for path in result["handed_over"]]
    if result["next_revocation"]:
        lines.append(
            "What was replaced is due on the revocation lists at %s: run playbooks/renew_crl.yml then, or let its "
            "timer do it." % result["next_revocation"]
        )
    return lines


def _unfinished(work: _pki_clients.Work, names: t.Iterable[str]) -> t.List[str]:
    left = []
    for name in names:
        folder = work.folder(name)
        if os.path.isdir(folder) and any(entry.endswith(".next") for entry in os.listdir(folder)):
            left.append("%s: an earlier run was cut off; a run that isn't a check finishes it first" % name)
    return left


def run(
    work: _pki_clients.Work,
    wanted: _pki_clients.Wanted,
    names: t.Sequence[str],
    *,
    check_mode: bool,
    lock_timeout_seconds: float,
) -> t.Dict[str, t.Any]:
    """Do what is wanted with the clients and return the module's result.

    Every refusal comes before the first change.

    Raises:
        _pki_make.Refused, _pki_records.Malformed, _pki.Damaged: it can't be done; the text says why.
        _file_lock.Held: another run has the directory.
    """
    directory = work.directory
    # A form that was left empty gives an empty name.
    names = list(dict.fromkeys(name for name in names if name))
    check_request(wanted, names, directory.revoked_clients)
    if wanted.action == "list" and not names:
        names = _pki_records.client_names(directory.path)
    reads_only = check_mode or wanted.action == "list"
    directory.authority()
    with contextlib.nullcontext() if reads_only else _pki_files.locked(directory.path, lock_timeout_seconds):
        if reads_only:
            finished = _unfinished(work, names)
        else:
            finished = [line for name in names for line in work.finish(name, wanted)]
        clients = [work.read(name) for name in names]
        decisions = [_pki_clients.decide(client, wanted) for client in clients]
        refusals = [decision.refusal for decision in decisions if decision.refusal]
        if refusals:
            raise _pki_make.Refused("Refused, no client was changed: %s" % " ".join(refusals))
        pairs = list(zip(clients, decisions))
        changed = [_pki_clients.describe(client) != _pki_clients.describe(client, plan) for client, plan in pairs]
        before = "".join(_pki_clients.describe(client) for client in clients)
        after = "".join(_pki_clients.describe(client, plan) for client, plan in pairs)
        handed: t.List[str] = []
        renewed = ""
        if reads_only and wanted.action == "revoke" and any(changed):
            renewed = "it will list what is revoked now"
        if not reads_only:
            for decision, due in zip(decisions, changed):
                if due:
                    handed += work.apply(decision, wanted)
            renewed = _pki_make.crl_due(directory)
            if renewed:
                _pki_make.renew_crl(directory)
            clients = [work.read(name) for name in names]
            after = "".join(_pki_clients.describe(client) for client in clients)
    views = [_pki_clients.view(client, wanted.now) for client in clients]
    next_revocation = _pki_records.next_revocation(_pki_records.read_records(directory.path), wanted.now)
    result: t.Dict[str, t.Any] = {
        "changed": wanted.action != "list" and (any(changed) or bool(renewed) or (bool(finished) and not reads_only)),
        "clients": views,
        "summary": [summarise(client) for client in views],
        "handed_over": handed,
        "finished": finished,
        "notes": ["%s: %s" % (plan.name, note) for plan in decisions for note in plan.notes],
        "crl_renewed": renewed,
        "next_revocation": _pki_records.format_time(next_revocation) if next_revocation else None,
    }
    result["report"] = report(result)
    if before != after:
        header = "clients in %s" % directory.path
        result["diff"] = {"before": before, "after": after, "before_header": header, "after_header": header}
    return result
