# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The receipt: what was proved of a host, in one JSON file without a secret.

Only the stable part decides whether a receipt is new: what is deployed and whether each check holds. When it was
proved, how long it took and what a check measured may differ without making a new receipt. The stable part is kept
under one digest, ``stable_sha256``.

Kept on a host: ``receipt.json`` is the last good one. A failed proof never replaces it; it is written beside the
previous ones, ``receipts/<when>-failed.json``.
"""

from __future__ import annotations

import contextlib
import datetime
import glob
import hashlib
import json
import os
import tempfile
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, refusals, warnings

SCHEMA = 1
FILE_MODE = 0o644
DIRECTORY_MODE = 0o755
VANTAGES = {"host": "host itself", "control": "control node"}
FAILED_SUFFIX = "-failed.json"
# Which fields of which JSON files beside an engine and a model say what exactly is deployed.
ENGINE_RECORDS = {"engine.json": ("key",), ".verified.json": ("sha256",)}
MODEL_RECORDS = {".gpufleet-manifest.json": ("source", "revision", "manifest_sha256")}

Receipt = t.Dict[str, t.Any]


# -- reading -----------------------------------------------------------------------------------------------------------


def sha256_of(path: str) -> str:
    """Return the sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1048576), b""):
            digest.update(block)
    return digest.hexdigest()


def read_digests(patterns: t.Sequence[str]) -> t.Dict[str, str]:
    """Return the sha256 of every regular file that matches a glob pattern (``**`` goes down), by path."""
    paths = {path for pattern in patterns for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
    return {path: sha256_of(path) for path in sorted(paths)}


def read_artifact(link: str, records: t.Mapping[str, t.Sequence[str]]) -> t.Dict[str, t.Any]:
    """Return which version a ``current`` link names, and fields of the JSON records that lie in it.

    Args:
        link: the link.
        records: file name below the link -> names of the fields wanted of it.

    Returns:
        ``{version, <field>: value…}``; null for what isn't there.
    """
    version = None
    with contextlib.suppress(OSError):
        version = os.path.basename(os.readlink(link).rstrip("/"))
    result: t.Dict[str, t.Any] = {"version": version}
    for name, fields in records.items():
        data: t.Any = None
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(link, name), encoding="utf-8") as handle:
                data = json.load(handle)
        for field in fields:
            result[field] = data.get(field) if isinstance(data, dict) else None
    return result


def parse(text: t.Optional[str]) -> t.Optional[Receipt]:
    """Return a receipt from its text, None when there is none or it isn't one."""
    try:
        data = json.loads(text or "")
    except ValueError:
        return None
    return data if isinstance(data, dict) and data.get("schema") == SCHEMA else None


def remembered_read_rate(text: t.Optional[str]) -> t.Optional[t.Dict[str, t.Any]]:
    """Return the read rate a receipt's text remembers, None when it remembers none."""
    receipt = parse(text) or {}
    rate = (receipt.get("measurements") or {}).get("read_rate")
    return rate if isinstance(rate, dict) else None


# -- making ------------------------------------------------------------------------------------------------------------


def stable_part(receipt: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Return what makes a receipt another one: who, what release, what is deployed, which checks hold.

    Of the findings only those of severity ``error`` count, by check and outcome. A unit's invocation counts: a new
    process is a new proof.
    """
    return {
        "schema": receipt["schema"],
        "host": receipt["host"],
        "release": receipt["release"],
        "accelerator": receipt["accelerator"],
        "ok": receipt["ok"],
        "plan": receipt["plan"],
        "hashes": receipt["hashes"],
        "units": receipt["units"],
        "findings": sorted(
            [finding["check"], bool(finding["ok"])] for finding in receipt["findings"] if finding["severity"] == "error"
        ),
    }


def stable_sha256(receipt: t.Mapping[str, t.Any]) -> str:
    """Return the digest of a receipt's stable part."""
    text = json.dumps(stable_part(receipt), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def make(
    *,
    host: str,
    release: str,
    accelerator: str,
    when: datetime.datetime,
    findings: t.Sequence[Finding],
    plan: t.Optional[t.Mapping[str, t.Any]],
    hashes: t.Mapping[str, t.Any],
    units: t.Mapping[str, t.Mapping[str, t.Any]],
    timings: t.Mapping[str, t.Any],
    measurements: t.Mapping[str, t.Any],
) -> Receipt:
    """Return a receipt.

    Args:
        host: the host's name in the inventory.
        release: id of the release.
        accelerator: what the engines compute with.
        when: time of the proof, UTC.
        findings: of preflight and validation together.
        plan: what was planned; None while nothing plans.
        hashes: ``engines``, ``models`` and ``configuration``.
        units: unit -> ``{active_state, invocation_id}``.
        timings: seconds, by vantage and model.
        measurements: what may be remembered, ``read_rate`` for one.
    """
    receipt: Receipt = {
        "schema": SCHEMA,
        "host": host,
        "release": release,
        "accelerator": accelerator,
        "when": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ok": not refusals(findings),
        "findings": list(findings),
        "plan": plan,
        "hashes": hashes,
        "units": units,
        "timings": timings,
        "measurements": measurements,
    }
    receipt["stable_sha256"] = stable_sha256(receipt)
    return receipt


def render(receipt: t.Mapping[str, t.Any]) -> str:
    """Return a receipt's text: sorted, indented, one newline at the end."""
    return json.dumps(receipt, indent=2, sort_keys=True) + "\n"


def memory_rows(memory: t.Mapping[str, t.Any]) -> t.List[t.Tuple[str, str]]:
    """Return what was planned of each engine's KV cache, and what the running one has."""
    rows = []
    for name, one in sorted(memory.items()):
        planned, measured = one.get("planned"), (one.get("measured") or {}).get("kv_tokens")
        if planned:
            tokens = "nothing" if measured is None else "{:,}".format(measured)
            rows.append(
                ("KV cache", "%s, %s tokens planned, %s measured" % (name, "{:,}".format(planned["kv_tokens"]), tokens))
            )
    return rows


def summary_lines(receipt: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return a receipt as a short table for a person."""
    findings = receipt["findings"]
    failed = refusals(findings)
    rows = [
        ("host", "%s, %s" % (receipt["host"], "proved" if receipt["ok"] else "NOT proved")),
        ("when", receipt["when"]),
        ("release", "%s (%s)" % (receipt["release"], receipt["accelerator"])),
        (
            "checks",
            "%d made, %d failed, %d warnings" % (len(findings), len(failed), len(warnings(findings))),
        ),
    ]
    for name, engine in sorted((receipt["hashes"].get("engines") or {}).items()):
        rows.append(("engine", "%s %s" % (name, engine.get("version") or "missing")))
    for name, model in sorted((receipt["hashes"].get("models") or {}).items()):
        rows.append(("model", "%s %s" % (name, model.get("version") or "missing")))
    rows.extend(memory_rows((receipt.get("measurements") or {}).get("memory") or {}))
    for vantage, models in sorted((receipt["timings"] or {}).items()):
        for name, timing in sorted(models.items()):
            first = timing.get("time_to_first_token_seconds")
            if first is not None:
                rows.append(
                    ("first token", "%s, asked by the %s, after %.3f s" % (name, VANTAGES.get(vantage, vantage), first))
                )
    lines = ["%-12s %s" % row for row in rows]
    lines.extend("%-12s %s: found %s, expected %s" % ("failed", f["check"], f["found"], f["expected"]) for f in failed)
    return lines


# -- keeping -----------------------------------------------------------------------------------------------------------


def read_text(path: str) -> t.Optional[str]:
    """Return a file's text, None when it isn't there."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except OSError:
        return None


def write_text(path: str, text: str) -> None:
    """Replace a file at once, mode 0644, its directory made where it's missing."""
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=DIRECTORY_MODE, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=".receipt-", dir=directory)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fchmod(handle.fileno(), FILE_MODE)
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def history_name(receipt: t.Mapping[str, t.Any]) -> str:
    """Return the name of a receipt among the previous ones: its time without colons, and whether it failed."""
    stamp = str(receipt["when"]).replace(":", "").replace("-", "")
    return stamp + (".json" if receipt["ok"] else FAILED_SUFFIX)


def is_same(text: t.Optional[str], receipt: t.Mapping[str, t.Any]) -> bool:
    """Tell whether a receipt's text says the same as a receipt, times apart; a text somebody changed doesn't."""
    known = parse(text)
    if known is None:
        return False
    try:
        return bool(stable_sha256(known) == known.get("stable_sha256") == receipt["stable_sha256"])
    except (KeyError, TypeError):
        return False


class Change(t.NamedTuple):
    """What keeping a receipt comes to: whether it changes anything, where the receipt is, texts before and after."""

    changed: bool
    path: str
    before: str
    after: str
    receipt: Receipt


def newest_failed(history: str) -> t.Optional[str]:
    """Return the path of the newest failed receipt, None when there is none."""
    failed = sorted(glob.glob(os.path.join(glob.escape(history), "*" + FAILED_SUFFIX)))
    return failed[-1] if failed else None


def prune(history: str, keep: int) -> t.List[str]:
    """Remove all but the newest previous receipts; return the paths that went."""
    paths = sorted(glob.glob(os.path.join(glob.escape(history), "*.json")))
    gone = paths[: max(0, len(paths) - keep)]
    for path in gone:
        os.unlink(path)
    return gone


def keep_receipt(receipt: Receipt, path: str, history: str, keep: int, write: bool) -> Change:
    """Keep a receipt, unless it says the same as the last of its kind.

    A good one becomes the receipt, and the one before goes among the previous. A failed one goes there itself.

    Args:
        receipt: the new one.
        path: where the last good one is.
        history: directory of the previous ones.
        keep: how many previous ones stay.
        write: false to only say what would be done.
    """
    current = read_text(path)
    if receipt["ok"]:
        if is_same(current, receipt):
            return Change(False, path, current or "", current or "", parse(current) or receipt)
        if write:
            before = parse(current)
            if current is not None and before is not None and before.get("when"):
                write_text(os.path.join(history, history_name(before)), current)
            write_text(path, render(receipt))
            prune(history, keep)
        return Change(True, path, current or "", render(receipt), receipt)
    last = newest_failed(history)
    text = read_text(last) if last else None
    if last and is_same(text, receipt) and _is_later(text, current):
        return Change(False, last, text or "", text or "", receipt)
    target = os.path.join(history, history_name(receipt))
    if write:
        write_text(target, render(receipt))
        prune(history, keep)
    return Change(True, target, text or "", render(receipt), receipt)


def _is_later(text: t.Optional[str], than: t.Optional[str]) -> bool:
    """Tell whether one receipt's text is of a later time than another's."""
    return str((parse(text) or {}).get("when")) >= str((parse(than) or {}).get("when", ""))


def keep_copy(receipt: Receipt, directory: str, host: str, write: bool) -> bool:
    """Keep a copy on the control node: ``<host>.json`` the last good one, ``<host>.failed.json`` only while it fails.

    Returns:
        Whether anything changed or would.
    """
    good = os.path.join(directory, host + ".json")
    failed = os.path.join(directory, host + ".failed.json")
    target = good if receipt["ok"] else failed
    changed = False
    if not is_same(read_text(target), receipt):
        changed = True
        if write:
            write_text(target, render(receipt))
    if receipt["ok"] and os.path.exists(failed):
        changed = True
        if write:
            os.unlink(failed)
    return changed


class NoReceipt(Exception):
    """There is no receipt to add a measurement to."""


def add_measurement(path: str, name: str, subject: str, value: t.Any, when: datetime.datetime, write: bool) -> Change:
    """Add a measurement to the receipt that is there; the stable part, and so what it proves, stays as it is.

    Args:
        path: the receipt.
        name: kind of the measurement.
        subject: what was measured, a model for one.
        value: a mapping that JSON holds; ``when`` is added to it.
        when: time of the measurement, UTC.
        write: false to only say what would be done.

    Raises:
        NoReceipt: there is none, or it isn't one.
    """
    text = read_text(path)
    receipt = parse(text)
    if receipt is None:
        raise NoReceipt(path)
    measurements = dict(receipt.get("measurements") or {})
    before = measurements.get(name)
    subjects = dict(before) if isinstance(before, dict) else {}
    subjects[subject] = dict(value, when=when.strftime("%Y-%m-%dT%H:%M:%SZ"))
    measurements[name] = subjects
    receipt["measurements"] = measurements
    after = render(receipt)
    if write:
        write_text(path, after)
    return Change(True, path, text or "", after, receipt)
