# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What the module model_snapshot does on the host, step by step, as its action plugin asks."""

from __future__ import annotations

import fcntl
import os
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, refusals
from ansible_collections.gpufleet.llm.plugins.module_utils._model_fetch import Fetcher, fetch_verified
from ansible_collections.gpufleet.llm.plugins.module_utils._model_host import (
    ModelStore,
    corrupt_findings,
    disk_needed,
    free_bytes,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._model_hub import Hub
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import (
    FileEntry,
    ModelError,
    check_disk,
    entry_from,
    refuse,
    version_id,
)

Params = t.Mapping[str, t.Any]
Result = t.Dict[str, t.Any]
MIB = 1024 * 1024


def run_step(params: Params, check_mode: bool, library: t.Any = None) -> Result:
    """Run one step for all the models of the plan and return the module's result.

    Raises:
        ModelError: a refusal.
    """
    step = params["step"]
    if step == "inspect" and params["state"] == "verified":
        return _verify(params, check_mode)
    steps: t.Dict[str, t.Callable[[t.Dict[str, t.Any]], Result]] = {
        "inspect": lambda item: _inspect(params, item, check_mode),
        "resolve": lambda item: _resolve(params, item, library),
        "fetch": lambda item: _fetch(params, item, library),
        "seal": lambda item: _seal(params, item),
        "commit": lambda item: _commit(params, item),
    }
    answers = [steps[step](item) for item in params["plan"]]
    return {
        "changed": any(bool(answer.get("changed")) for answer in answers),
        "models": answers,
        "free_bytes": free_bytes(params["directory"]),
    }


def _entries(item: t.Mapping[str, t.Any]) -> t.Optional[t.List[FileEntry]]:
    raw = item.get("files")
    return None if raw is None else [entry_from(entry) for entry in raw]


def _inspect(params: Params, item: t.Mapping[str, t.Any], check_mode: bool) -> Result:
    """Compare what is on the host with what is wanted. Reads no content unless asked to, or unless a stat changed."""
    store = ModelStore(params["directory"], item["name"])
    current = store.current_id()
    record = store.record(current)
    entries = _entries(item)
    known = {key: record.get(key) for key in ("version_id", "source", "revision", "manifest_sha256", "bytes_total")}
    answer: Result = {
        "name": item["name"],
        "current": current,
        "record": known,
        "manifest": {path: file["sha256"] for path, file in record.get("files", {}).items()},
        "resolved": entries is not None,
        "ok": False,
        "need": [],
        "staged": {},
        "needed_bytes": 0,
        "corrupt": [],
        "extra": [],
        "modes": [],
        "prunable": [],
    }
    if entries is None and record and (known["source"], known["revision"]) == (item["source"], item.get("revision")):
        entries = [FileEntry(path, f["size"], f["sha256"]) for path, f in record["files"].items()]
    if entries is None:
        return answer
    answer["files"] = [entry.as_dict() for entry in entries]
    unknown = [entry for entry in entries if not entry.sha256]
    identity = None if unknown else version_id(entries)
    answer["wanted"] = identity
    bad = [entry.path for entry in entries]
    if identity and os.path.isdir(store.path(identity)):
        drift = store.drift(identity, entries)
        suspects = set(drift["bad"])
        if identity == current:
            every = params["verify"] == "always"
            paths = [entry.path for entry in entries] if every else sorted(suspects)
            recorded = store.record(identity).get("files", {})
            judged = [path for path in paths if path in recorded]
            answer["corrupt"] = store.rehash(identity, judged) if judged else []
            broken = {found["path"] for found in answer["corrupt"]}
            suspects = broken | {path for path in suspects if path not in recorded}
            if judged and not check_mode:
                with store.locked():
                    store.mark(identity, broken, judged)
        else:
            suspects = {p for p in suspects if not os.path.isfile(os.path.join(store.path(identity), p))}
        bad = sorted(suspects)
        answer["extra"], answer["modes"] = drift["extra"], drift["modes"]
        answer["prunable"] = store.prunable(params["keep_versions"], params["reference_globs"]) if current else []
    staged = store.staged()
    for entry in entries:
        if entry.path not in bad or (entry.sha256 and store.reusable(entry.sha256)):
            continue
        answer["need"].append(entry.path)
        answer["staged"][entry.path] = {"bytes": staged.get(entry.key, 0), "sealed": bool(store.sealed(entry.key))}
    answer["needed_bytes"] = disk_needed(store, [entry for entry in entries if entry.path in bad])
    answer["ok"] = not (bad or answer["extra"] or answer["modes"] or answer["prunable"]) and identity == current
    return answer


def _verify(params: Params, check_mode: bool) -> Result:
    """Hash every file of the current versions again."""
    findings: t.List[Finding] = []
    answers = []
    for model in params["models"]:
        store = ModelStore(params["directory"], model["name"])
        current = store.current_id()
        record = store.record(current)
        if not current or not record:
            raise refuse(
                "model.absent",
                expected="a current version of model %s with its record" % model["name"],
                found="%s: %s" % (store.link, current or "no such link"),
                remedy="Run the role without --tags verify first.",
            )
        broken = store.rehash(current)
        if not check_mode:
            with store.locked():
                store.mark(current, {item["path"] for item in broken}, list(record["files"]))
        findings.extend(corrupt_findings(store.name, current, broken))
        answers.append(
            {
                "name": store.name,
                "version_id": current,
                "manifest_sha256": record["manifest_sha256"],
                "path": store.path(current),
                "link": store.link,
                "bytes_total": record["bytes_total"],
                "files": len(record["files"]),
                "changed": False,
            }
        )
    if refusals(findings):
        raise ModelError(findings)
    return {"changed": False, "models": answers, "findings": findings}


def _resolve(params: Params, item: t.Mapping[str, t.Any], library: t.Any) -> Result:
    hub = Hub(library, params["hf_endpoint"], params["hf_token"])
    entries = hub.resolve(item["repository"], item["revision"])
    return {"name": item["name"], "files": [entry.as_dict() for entry in entries]}


def _fetch(params: Params, item: t.Mapping[str, t.Any], library: t.Any) -> Result:
    """Download files to the staging folder of this host. An item names the files and their URLs, or a hub commit."""
    store = ModelStore(params["directory"], item["name"])
    store.prepare_staging()
    fetcher = Fetcher(allow_http=params["allow_http"])
    hub = Hub(library, params["hf_endpoint"], params["hf_token"]) if item.get("hub") else None
    done = []
    for raw in item["files"]:
        entry = entry_from(raw)
        if store.sealed(entry.key):
            done.append(store.seal(entry))
            continue
        partial = os.path.join(store.staging, entry.key + ".partial")
        with open(os.path.join(store.staging, entry.key + ".json.lock"), "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise refuse(
                    "model.locked",
                    expected="nobody else fetches %s" % entry.path,
                    found="another process does",
                    detail="Model %s." % item["name"],
                    remedy="Wait for the other run, then run again.",
                ) from None
            if hub:
                url, headers = hub.location(item["repository"], item["revision"], entry.path)
            else:
                url, headers = raw["url"], {}
            size = entry.size if entry.size is not None else fetcher.size(url, headers)
            have = os.path.getsize(partial) if os.path.exists(partial) else 0
            short = check_disk(
                params["directory"],
                max(0, (size or 0) - have),
                params["disk_margin_mib"] * MIB,
                free_bytes(store.staging),
                "model_store_dir",
            )
            if short:
                raise ModelError(short)
            fetch_verified(fetcher, entry, url, partial, headers=headers)
            done.append(store.seal(entry))
    return {"name": item["name"], "sealed": done, "received": fetcher.received, "changed": True}


def _seal(params: Params, item: t.Mapping[str, t.Any]) -> Result:
    store = ModelStore(params["directory"], item["name"])
    with store.locked():
        return {
            "name": item["name"],
            "sealed": [store.seal(entry_from(raw)) for raw in item["files"]],
            "changed": True,
        }


def _commit(params: Params, item: t.Mapping[str, t.Any]) -> Result:
    store = ModelStore(params["directory"], item["name"])
    entries = _entries(item) or []
    with store.locked():
        previous = store.current_id()
        answer = store.commit(
            entries,
            source=item["source"],
            revision=item.get("revision"),
            keep_versions=params["keep_versions"],
            allow_pickle=params["allow_pickle"],
            reference_globs=params["reference_globs"],
        )
    record = store.record(answer["version_id"])
    answer.update(
        name=item["name"],
        previous_version_id=previous,
        path=store.path(answer["version_id"]),
        link=store.link,
        bytes_total=record.get("bytes_total", 0),
        manifest_sha256=record.get("manifest_sha256"),
        files=len(entries),
    )
    return answer
