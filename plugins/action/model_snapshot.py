# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of model_snapshot: decide, download once, ship what differs; the host verifies."""

from __future__ import annotations

import functools
import json
import os
import shlex
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import (
    Finding,
    describe,
    refusal_message,
    refusals,
    warnings,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._model_content import check_content
from ansible_collections.gpufleet.llm.plugins.module_utils._model_control import ControlCache, scan_directory
from ansible_collections.gpufleet.llm.plugins.module_utils._model_fetch import Fetcher, fetch_verified
from ansible_collections.gpufleet.llm.plugins.module_utils._model_host import free_bytes
from ansible_collections.gpufleet.llm.plugins.module_utils._model_hub import Hub, hub_library, scrub
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import (
    FileEntry,
    ModelError,
    Source,
    check_disk,
    check_listing,
    check_models,
    entry_from,
    file_url,
    human,
    manifest_entries,
    manifest_sha256,
    parse_sha256sums,
    parse_source,
    refuse,
    selected,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._model_spec import ARGUMENT_SPEC

MIB = 1024 * 1024
CHUNK = 64 * MIB  # bytes in one command over the connection; a cut costs at most this much
SEAL_BATCH = 2048 * MIB  # bytes that the host hashes in one go before it says something
DEFAULT_CACHE = "/var/cache/gpufleet/models"
NOTHING_SERVED = "nothing that is served was changed"

# Append stdin to a partial file, if it is still as long as we think, under its lock. $1 file, $2 bytes expected.
APPEND = (
    'umask 077; exec 9>>"$1" || exit 41; flock -w 60 9 || exit 42; '
    '[ "$(stat -c %s "$1")" = "$2" ] || exit 43; cat >&9 || exit 44; stat -c %s "$1"'
)
APPEND_ERRORS = {
    41: "the staging file can't be written",
    42: "another run holds the staging file",
    43: "another run is writing the same file",
    44: "the bytes could not be written",
    127: "flock(1) or stat(1) is missing on the host",
}

display = Display()


class Model:
    """One stated model on its way: what is wanted, what the host said, where the bytes are on the control node."""

    def __init__(self, statement: t.Dict[str, t.Any]) -> None:
        self.statement = statement
        self.name = str(statement["name"])
        source = parse_source(str(statement.get("source") or ""))
        if source is None:  # check_models() refused these
            raise ValueError("model %s: no source" % self.name)
        self.source: Source = source
        self.revision: t.Optional[str] = statement.get("revision") or None
        self.include: t.List[str] = [str(glob) for glob in statement.get("include") or []]
        self.exclude: t.List[str] = [str(glob) for glob in statement.get("exclude") or []]
        self.entries: t.Optional[t.List[FileEntry]] = None
        self.origins: t.Dict[str, str] = {}
        self.seen: t.Dict[str, t.Any] = {}
        self.result: t.Dict[str, t.Any] = {}

    @property
    def is_hub(self) -> bool:
        return self.source.scheme == "huggingface"

    @property
    def recorded_source(self) -> str:
        """The source with its selection, as the host's record keeps it."""
        if not self.include and not self.exclude:
            return self.source.text
        return "%s %s" % (self.source.text, json.dumps({"include": self.include, "exclude": self.exclude}))

    @property
    def files(self) -> t.List[FileEntry]:
        return self.entries or []

    def plan(self, entries: t.Optional[t.Sequence[FileEntry]] = None) -> t.Dict[str, t.Any]:
        """Return the item of the module's plan."""
        listed = self.entries if entries is None else entries
        return {
            "name": self.name,
            "source": self.recorded_source,
            "revision": self.revision,
            "repository": self.source.location,
            "hub": self.is_hub,
            "files": None if listed is None else [entry.as_dict() for entry in listed],
        }

    def url(self, entry: FileEntry) -> str:
        return file_url(self.source.location, entry.path)

    def replace(self, path: str, sha256: str, size: int) -> None:
        """Fill in what was learnt about a file."""
        self.entries = [FileEntry(e.path, size, sha256) if e.path == path else e for e in self.files]


class ActionModule(ActionBase):
    """See the module's documentation."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        self._vars: t.Dict[str, t.Any] = task_vars or {}
        _ignored, self._args = self.validate_argument_spec(ARGUMENT_SPEC)
        token = self._args["hf_token"]
        self._findings: t.List[Finding] = []
        try:
            if self._args["state"] == "verified":
                result.update(self._module("inspect", []))
                return result
            result.update(self._present())
        except ModelError as exc:
            message = refusal_message(exc.findings, "The model store").replace("nothing was changed", NOTHING_SERVED)
            result.update(failed=True, changed=False, msg=scrub(message, token), findings=exc.findings)
        except AnsibleError as exc:
            raise AnsibleActionFail(scrub(str(exc), token)) from None
        return result

    # --- the steps ---------------------------------------------------------------------------------------------

    def _present(self) -> t.Dict[str, t.Any]:
        args = self._args
        stated = list(args["models"])
        self._refuse(
            check_models(
                stated, allow_http=args["allow_http"], hf_endpoint=args["hf_endpoint"], fetch_on=args["fetch_on"]
            )
        )
        unique = {str(statement["name"]): statement for statement in stated}
        self._cache = ControlCache(args["cache_dir"] or DEFAULT_CACHE, read_only=self._task.check_mode)
        self._fetcher = Fetcher(allow_http=args["allow_http"])
        models = [Model(statement) for statement in unique.values()]
        self._read_sources(models)
        self._inspect(models)
        pending = [model for model in models if not model.seen["ok"]]
        self._resolve([model for model in pending if not model.seen["resolved"] and "files" not in model.seen])
        self._guess_sizes(pending)
        self._check_host_disk(pending)
        if not self._task.check_mode:
            self._bring(pending)
        return self._report(models)

    def _read_sources(self, models: t.Sequence[Model]) -> None:
        """Learn what is wanted, as far as no network is needed. Collects the refusals of all the models."""
        refused: t.List[Finding] = []
        for model in models:
            try:
                if model.source.scheme == "file":
                    model.origins = scan_directory(model.name, model.source.location, model.include, model.exclude)
                    refused.extend(self._listing(model, list(model.origins)))
                    refused.extend(
                        check_content(model.name, model.origins, allow_pickle=bool(self._args["allow_pickle"]))
                    )
                    if not refusals(refused):
                        model.entries = self._cache.hash_files(
                            model.origins, model.source.location, functools.partial(self._say, model, "hash")
                        )
                elif not model.is_hub:
                    listed = [e for e in self._manifest(model) if selected(e.path, model.include, model.exclude)]
                    model.entries = listed
                    refused.extend(self._listing(model, [entry.path for entry in listed]))
                else:
                    known = self._remembered(model)
                    if known is not None:
                        self._take_listing(model, known)
            except ModelError as exc:
                refused.extend(exc.findings)
            except OSError as exc:
                refused.extend(
                    refuse(
                        "model.source_read",
                        expected="readable files on the control node",
                        found=str(exc),
                        detail="Model %s." % model.name,
                        remedy="Make them readable for the user who runs the play.",
                    ).findings
                )
        self._refuse(refused)

    def _manifest(self, model: Model) -> t.List[FileEntry]:
        raw: t.Dict[str, t.Any] = dict(model.statement.get("manifest") or {})
        path = model.statement.get("manifest_file")
        if path and not raw:
            try:
                with open(path, encoding="utf-8") as handle:
                    raw = parse_sha256sums(handle.read(), path)
            except (OSError, UnicodeDecodeError) as exc:
                raise refuse(
                    "model.manifest_file",
                    expected="a file that sha256sum wrote, on the control node",
                    found=str(exc),
                    detail="gpufleet_models[name=%s].manifest_file." % model.name,
                    remedy="Put it there, or correct the path.",
                ) from None
        return manifest_entries(model.name, raw)

    def _listing(self, model: Model, paths: t.Sequence[str]) -> t.List[Finding]:
        return check_listing(
            model.statement, paths, allow_pickle=bool(self._args["allow_pickle"]), where=model.source.text
        )

    def _take_listing(self, model: Model, entries: t.Sequence[FileEntry]) -> None:
        chosen = [entry for entry in entries if selected(entry.path, model.include, model.exclude)]
        self._refuse(self._listing(model, [entry.path for entry in chosen]))
        model.entries = chosen

    def _inspect(self, models: t.Sequence[Model]) -> None:
        """Ask the host about all the models at once."""
        answer = self._module("inspect", [model.plan() for model in models])
        self._free = int(answer["free_bytes"])
        for model, seen in zip(models, answer["models"]):
            model.seen = seen
            if model.entries is None and seen.get("files"):
                # The host has this very commit on record: the hub needn't be asked.
                model.entries = [entry_from(raw) for raw in seen["files"]]

    def _resolve(self, models: t.Sequence[Model]) -> None:
        """Ask the hub what the commits hold."""
        for model in models:
            revision = model.revision or ""
            if self._args["fetch_on"] == "host":
                answer = self._module("resolve", [model.plan()])
                entries = [entry_from(raw) for raw in answer["models"][0]["files"]]
            else:
                entries = self._hub().resolve(model.source.location, revision)
                self._cache.remember_hub_commit(self._args["hf_endpoint"], model.source.location, revision, entries)
            self._take_listing(model, entries)
        if models:
            self._inspect(models)

    def _guess_sizes(self, models: t.Sequence[Model]) -> None:
        """Ask the server for sizes that no manifest gives, so that the disk is judged before a byte is fetched."""
        if self._args["fetch_on"] == "host":
            return
        for model in models:
            for entry in model.files:
                if entry.size is not None or entry.path not in model.seen["need"]:
                    continue
                blob = self._cache.blob(entry.sha256)
                size = os.path.getsize(blob) if blob else self._fetcher.size(model.url(entry)) or 0
                staged = model.seen["staged"].get(entry.path, {}).get("bytes", 0)
                model.seen["needed_bytes"] += max(0, size - staged)

    def _check_host_disk(self, models: t.Sequence[Model]) -> None:
        needed = sum(int(model.seen["needed_bytes"]) for model in models)
        margin = int(self._args["disk_margin_mib"]) * MIB
        self._refuse(check_disk(str(self._args["directory"]), needed, margin, self._free, "model_store_dir"))

    def _bring(self, models: t.Sequence[Model]) -> None:
        """Fetch, ship, seal and commit, one model after the other."""
        for model in models:
            on_host = self._args["fetch_on"] == "host" and model.source.scheme != "file"
            self._learn_hashes(model, on_host)
            paths = list(model.seen["need"])
            for _attempt in range(2):
                if on_host:
                    self._fetch_on_host(model, paths)
                elif paths:
                    self._fetch_on_control(model, paths)
                    self._check_host_disk([model])
                    self._ship(model, paths)
                committed = self._module("commit", [model.plan()])["models"][0]
                paths = list(committed["missing"])
                if not paths:
                    break
                self._inspect([model])
            self._refuse(committed["findings"])
            if paths:
                raise refuse(
                    "model.incomplete",
                    expected="every file of model %s on the host" % model.name,
                    found="missing after two attempts: %s" % ", ".join(paths[:5]),
                    remedy="Look at the host's disk, then run again.",
                )
            model.result = committed

    def _learn_hashes(self, model: Model, on_host: bool) -> None:
        """A hub knows small files by their git id only: fetch them first, then everything has a sha256."""
        unknown = [entry for entry in model.files if not entry.sha256]
        if not unknown:
            return
        if on_host:
            self._fetch_on_host(model, [entry.path for entry in unknown])
        else:
            self._fetch_on_control(model, [entry.path for entry in unknown])
            full = {entry.path: entry for entry in model.files}
            listed = self._remembered(model)
            self._cache.remember_hub_commit(
                self._args["hf_endpoint"],
                model.source.location,
                model.revision or "",
                [full.get(entry.path, entry) for entry in listed or model.files],
            )
        self._inspect([model])

    # --- bytes -------------------------------------------------------------------------------------------------

    def _fetch_on_control(self, model: Model, paths: t.Sequence[str]) -> None:
        if model.source.scheme == "file":
            return
        self._cache.prepare()
        entries = [entry for entry in model.files if entry.path in set(paths) and not self._cache.blob(entry.sha256)]
        sizes = [entry.size or 0 for entry in entries]
        have = [self._cache.partial_bytes(entry) for entry in entries]
        self._refuse(
            check_disk(
                self._cache.directory,
                sum(max(0, size - done) for size, done in zip(sizes, have)),
                int(self._args["disk_margin_mib"]) * MIB,
                free_bytes(self._cache.directory),
                "gpufleet_cache_dir (on the control node)",
            )
        )
        for entry in entries:
            with self._cache.locked(entry):
                if self._cache.blob(entry.sha256):
                    continue
                url = model.url(entry)
                headers: t.Dict[str, str] = {}
                if model.is_hub:
                    url, headers = self._hub().location(model.source.location, model.revision or "", entry.path)
                sha256 = fetch_verified(
                    self._fetcher,
                    entry,
                    url,
                    self._cache.partial(entry),
                    headers=headers,
                    progress=self._progress(model, entry.path, "download"),
                )
                real = self._cache.keep(entry, sha256)
            model.replace(entry.path, sha256, os.path.getsize(real))
        self._judge_content(model)

    def _judge_content(self, model: Model) -> None:
        """Look into what was downloaded before it is shipped."""
        here = {entry.path: self._cache.blob(entry.sha256) for entry in model.files}
        readable = {path: real for path, real in here.items() if real}
        for entry in model.files:
            if entry.size is None and here[entry.path]:
                model.replace(entry.path, str(entry.sha256), os.path.getsize(str(here[entry.path])))
        self._refuse(
            check_content(model.name, readable, allow_pickle=bool(self._args["allow_pickle"]), present=list(here))
        )

    def _fetch_on_host(self, model: Model, paths: t.Sequence[str]) -> None:
        """Let the host download, one call for each file, so that there is something to say in between."""
        for entry in [entry for entry in model.files if entry.path in set(paths)]:
            self._say(model, "download on the host", entry.path, entry.size)
            raw = entry.as_dict()
            if not model.is_hub:
                raw["url"] = model.url(entry)
            item = dict(model.plan([]), files=[raw])
            for sealed in self._module("fetch", [item])["models"][0]["sealed"]:
                if sealed["ok"]:
                    model.replace(entry.path, sealed["sha256"], sealed["size"])

    def _ship(self, model: Model, paths: t.Sequence[str]) -> None:
        """Send files to the host's staging folder, from where the last run was cut, and let the host hash them."""
        staging = os.path.join(str(self._args["directory"]), model.name, ".staging")
        self._command("umask 022; mkdir -p %s && chmod 0700 %s" % (shlex.quote(staging), shlex.quote(staging)), staging)
        wanted = {entry.key: entry for entry in reversed(model.files) if entry.path in set(paths)}
        batch: t.List[FileEntry] = []
        for entry in sorted(wanted.values(), key=lambda e: e.path):
            staged = model.seen["staged"].get(entry.path, {})
            if not staged.get("sealed"):
                self._send(model, entry, staging, int(staged.get("bytes", 0)))
            batch.append(entry)
            if sum(e.size or 0 for e in batch) >= SEAL_BATCH:
                self._seal(model, batch, staging)
                batch = []
        self._seal(model, batch, staging)

    def _send(self, model: Model, entry: FileEntry, staging: str, offset: int) -> None:
        real = model.origins.get(entry.path) or self._cache.blob(entry.sha256)
        if not real:
            raise AnsibleActionFail("model %s: %s is not on the control node any more" % (model.name, entry.path))
        if not getattr(self._connection, "has_pipelining", False):
            raise AnsibleActionFail(
                "the connection plugin %s can't stream a file; use ssh, or model_store_fetch_on: host"
                % self._connection.transport
            )
        partial = os.path.join(staging, entry.key + ".partial")
        total = os.path.getsize(real)
        if offset > total:
            self._command("rm -f %s" % shlex.quote(partial), partial)
            offset = 0
        progress = self._progress(model, entry.path, "resume" if offset else "ship")
        with open(real, "rb") as handle:
            handle.seek(offset)
            while True:
                chunk = handle.read(CHUNK)
                if not chunk and offset:
                    break
                command = "sh -c %s sh %s %d" % (shlex.quote(APPEND), shlex.quote(partial), offset)
                answer = self._command(command, partial, chunk)
                offset += len(chunk)
                if answer.strip() != str(offset):
                    raise AnsibleActionFail(
                        "model %s: %s on the host has %s bytes, expected %d: run again"
                        % (model.name, partial, answer.strip() or "unknown", offset)
                    )
                progress(offset, total)
                if not chunk:
                    break

    def _seal(self, model: Model, entries: t.Sequence[FileEntry], staging: str, again: bool = True) -> None:
        if not entries:
            return
        bad = [s for s in self._module("seal", [model.plan(entries)])["models"][0]["sealed"] if not s["ok"]]
        if not bad:
            return
        paths = {item["path"] for item in bad}
        if again:
            # What was staged before may have been of a run that was cut badly; the seal removed it. Once more, whole.
            retry = [entry for entry in entries if entry.path in paths]
            for entry in retry:
                self._send(model, entry, staging, 0)
            self._seal(model, retry, staging, again=False)
            return
        raise refuse(
            "model.checksum",
            expected="sha256 %s" % bad[0]["expected"],
            found="sha256 %s (%d bytes) on the host" % (bad[0]["got"], bad[0]["size"]),
            detail="Model %s, file %s, shipped from %s." % (model.name, bad[0]["path"], model.source.text),
            remedy="If the source was changed during the run, run again; else look at the disk and the memory.",
        )

    def _command(self, command: str, path: str, data: t.Optional[bytes] = None) -> str:
        """Run a shell command on the host, with bytes on its standard input."""
        answer = self._low_level_execute_command(command, in_data=data if data else None)
        if answer["rc"]:
            why = APPEND_ERRORS.get(answer["rc"]) or answer.get("stderr") or answer.get("stdout") or "unknown"
            full = "no space" in (answer.get("stderr") or "").lower()
            raise refuse(
                "model.ship",
                expected="%s to take the bytes" % path,
                found="status %d: %s" % (answer["rc"], "no space left" if full else str(why).strip()),
                detail=str(answer.get("stderr") or "").strip()[:300],
                remedy="What arrived is kept and resumed by the next run.",
            )
        return str(answer.get("stdout") or "")

    def _remembered(self, model: Model) -> t.Optional[t.List[FileEntry]]:
        return self._cache.hub_commit(str(self._args["hf_endpoint"]), model.source.location, model.revision or "")

    # --- small things ------------------------------------------------------------------------------------------

    def _hub(self) -> Hub:
        library = hub_library()
        if library is None:
            raise refuse(
                "model.hub_library",
                expected="the Python library huggingface_hub beside Ansible",
                found="no such module",
                detail="Needed on the control node with model_store_fetch_on: control and a huggingface: source.",
                remedy="pip install huggingface_hub into the environment that runs ansible-playbook.",
            )
        return Hub(library, str(self._args["hf_endpoint"]), self._args["hf_token"])

    def _module(self, step: str, plan: t.List[t.Dict[str, t.Any]]) -> t.Dict[str, t.Any]:
        """Start the module on the host for one step. It gets no more than the step needs, the token least of all."""
        keys = ("directory", "state", "verify", "keep_versions", "allow_pickle", "allow_http", "disk_margin_mib")
        arguments = {key: self._args[key] for key in keys}
        arguments.update(step=step, plan=plan, reference_globs=self._args["reference_globs"])
        arguments["models"] = [{"name": str(model.get("name"))} for model in self._args["models"]]
        arguments["hf_endpoint"] = self._args["hf_endpoint"]
        if self._args["fetch_on"] == "host" and step in ("resolve", "fetch") and self._args["hf_token"]:
            if not self._connection.is_pipelining_enabled(False):
                raise refuse(
                    "model.token_on_disk",
                    expected="pipelining, so that the token reaches the host by the connection alone",
                    found="a connection without pipelining, which would write it to a file there",
                    detail="model_store_hf_token with model_store_fetch_on: host.",
                    remedy="Set pipelining = True in ansible.cfg, or model_store_fetch_on: control.",
                )
            arguments["hf_token"] = self._args["hf_token"]
        answer: t.Dict[str, t.Any] = self._execute_module(
            module_name="gpufleet.llm.model_snapshot", module_args=arguments, task_vars=self._vars
        )
        if answer.get("failed"):
            if answer.get("findings"):
                raise ModelError(answer["findings"])
            raise AnsibleActionFail(str(answer.get("msg") or answer.get("module_stderr") or "the module failed"))
        return answer

    def _refuse(self, findings: t.Sequence[Finding]) -> None:
        """Keep the warnings, and stop on the refusals, all of them at once."""
        for warning in warnings(findings):
            if warning not in self._findings:
                self._findings.append(warning)
                display.warning(describe(warning))
        if refusals(findings):
            raise ModelError(refusals(findings))

    def _say(self, model: Model, what: str, path: str, size: t.Optional[int], done: t.Optional[int] = None) -> None:
        host = self._vars.get("inventory_hostname", "?")
        part = human(size)
        if done is not None:
            part = "%s of %s (%d %%)" % (human(done), part, 100 if not size else done * 100 // size)
        display.display("model_store: [%s] %s %s: %s %s" % (host, model.name, what, path, part))

    def _progress(self, model: Model, path: str, what: str) -> t.Callable[[int, t.Optional[int]], None]:
        """Return a callback that says something at the end of a file and after each tenth of a large one."""
        state = {"said": 0}

        def progress(done: int, total: t.Optional[int]) -> None:
            if total and (done >= total or (total > CHUNK and done - state["said"] >= max(total // 10, CHUNK))):
                state["said"] = done
                self._say(model, what, path, total, done)

        return progress

    def _report(self, models: t.Sequence[Model]) -> t.Dict[str, t.Any]:
        reports, diffs = [], []
        for model in models:
            seen, done = model.seen, model.result
            known = all(entry.sha256 for entry in model.files)
            changed = bool(done.get("changed")) if done else not seen["ok"]
            identity = done.get("version_id") or seen.get("wanted") or None
            home = os.path.join(str(self._args["directory"]), model.name)
            reports.append(
                {
                    "name": model.name,
                    "version_id": identity,
                    "previous_version_id": done.get("previous_version_id", seen["current"]),
                    "manifest_sha256": manifest_sha256(model.files) if known else None,
                    "path": os.path.join(home, "versions", identity) if identity else None,
                    "link": os.path.join(home, "current"),
                    "bytes_total": done.get("bytes_total")
                    or sum(entry.size or 0 for entry in model.files)
                    or seen["record"].get("bytes_total"),
                    "files": len(model.files),
                    "bytes_to_fetch": seen["needed_bytes"],
                    "files_to_fetch": seen["need"],
                    "repaired": done.get("repaired", [item["path"] for item in seen["corrupt"]]),
                    "pruned": done.get("pruned", seen["prunable"]),
                    "changed": changed,
                }
            )
            if changed:
                diffs.append(self._diff(model, identity))
        result: t.Dict[str, t.Any] = {
            "changed": any(report["changed"] for report in reports),
            "models": reports,
            "findings": self._findings,
        }
        if diffs and (self._task.diff or self._task.check_mode):
            result["diff"] = diffs
        return result

    def _diff(self, model: Model, identity: t.Optional[str]) -> t.Dict[str, str]:
        seen = model.seen
        broken = {item["path"]: item["got"] for item in seen["corrupt"]}
        before = dict(seen["manifest"], **broken) if seen["current"] else {}
        after = {entry.path: entry.sha256 or "sha256 known after the download" for entry in model.files}
        link = os.path.join(str(self._args["directory"]), model.name, "current")
        return {
            "before_header": "%s (version %s)" % (link, seen["current"] or "none"),
            "after_header": "%s (version %s)" % (link, identity or "known after the download"),
            "before": _lines(seen["current"], before),
            "after": _lines(identity, after),
        }


def _lines(identity: t.Optional[str], files: t.Mapping[str, str]) -> str:
    if not files:
        return ""
    listed = "".join("%s  %s\n" % (sha256, path) for path, sha256 in sorted(files.items()))
    return "version: %s\n%s" % (identity or "known after the download", listed)
