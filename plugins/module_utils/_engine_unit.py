# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""An engine's unit on a host: start it, ask it for a token, keep the files it served with, and put them back."""

from __future__ import annotations

import glob
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Result",
    "MainPID",
    "NRestarts",
    "NeedDaemonReload",
    "InvocationID",
    "ExecMainStatus",
    "ExecMainStartTimestampMonotonic",
    "Job",
)
RECORD = "record.json"
PENDING = ".pending.json"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def request(
    path: str, method: str, url: str, body: t.Optional[t.Mapping[str, t.Any]], key: t.Optional[str], timeout: float
) -> t.Tuple[int, str]:
    """Send one request; return status and body. Raises OSError or http.client.HTTPException."""
    connection = UnixConnection(path, timeout)
    try:
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = "Bearer " + key
        connection.request(method, url, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def redact(text: str, key: t.Optional[str] = None) -> str:
    """Return ``text`` without the key and without anything that looks like one."""
    if key:
        text = text.replace(key, "****")
    text = re.sub(r"\bsk-[A-Za-z0-9_-]{8,}", "sk-****", text)
    return re.sub(r"(?i)\b(bearer\s+)[^\s\"']+", r"\1****", text)


def token_of(body: str) -> bool:
    """Return whether a completion's answer really holds a token."""
    try:
        answer = json.loads(body)
        return answer["usage"]["completion_tokens"] >= 1 and isinstance(answer["choices"][0]["text"], str)
    except (ValueError, KeyError, IndexError, TypeError):
        return False


def probe(path: str, model: str, key: str, timeout: float, engine: str = "vllm") -> str:
    """Return an empty string if the engine refuses the keyless and gives a token to the keyed, else what it did.

    llama.cpp gives its list of models to anybody, so that one is asked for a completion without a key.
    """
    ask = {"model": model, "prompt": "a", "max_tokens": 1, "temperature": 0}
    try:
        if engine == "vllm":
            status, _body = request(path, "GET", "/v1/models", None, None, timeout)
        else:
            status, _body = request(path, "POST", "/v1/completions", ask, None, timeout)
        if status != 401:
            return "a request without a key was answered with %d, expected 401: authentication is off" % status
        status, body = request(path, "POST", "/v1/completions", ask, key, timeout)
    except (OSError, http.client.HTTPException) as exc:
        return "no answer on %s: %s" % (path, exc or type(exc).__name__)
    if status != 200 or not token_of(body):
        return "a one-token completion was answered with %d: %s" % (status, redact(body, key)[:300])
    return ""


def read_unit(runner: Runner, unit: str) -> t.Dict[str, str]:
    """Return the properties of a unit, by systemd's own names."""
    rc, out, err = runner.run(["systemctl", "show", "--property=" + ",".join(PROPERTIES), "--", unit])
    if rc != 0:
        raise OSError("systemctl show %s exited with %d: %s" % (unit, rc, err.strip()))
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


def hopeless(unit: t.Mapping[str, str], allowed_restarts: int, restarts_before: int = 0) -> str:
    """Return why waiting any longer makes no sense, or an empty string.

    systemd counts the restarts since somebody last started the unit; ``restarts_before`` of them were over when the
    wait began, and say nothing about the start that is waited for.
    """
    if unit.get("LoadState") != "loaded":
        return "the unit is %s" % unit.get("LoadState")
    if unit.get("ActiveState") == "failed":
        return "the unit failed (%s, exit status %s)" % (unit.get("Result"), unit.get("ExecMainStatus"))
    if unit.get("ActiveState") == "inactive":
        return "the unit is not running"
    restarts = restarts_of(unit) - restarts_before
    if restarts > allowed_restarts:
        return "the engine died %d times while it started (exit status %s)" % (restarts, unit.get("ExecMainStatus"))
    return ""


def restarts_of(unit: t.Mapping[str, str]) -> int:
    """Return how often systemd has restarted a unit by itself since somebody last started it."""
    return int(unit.get("NRestarts") or 0)


def journal(runner: Runner, unit: str, key: t.Optional[str], lines: int = 25) -> t.List[str]:
    """Return the last lines of a unit's journal without secrets."""
    _rc, out, _err = runner.run(["journalctl", "--no-pager", "-o", "cat", "-n", str(lines), "-u", unit])
    return redact(out, key).splitlines()[-lines:]


#: What differs between engines: the name of an instance's configuration, and a request that needs the key.
CONFIG_NAMES = {"vllm": "config.yaml", "llama_cpp": "config.json"}


def own_files(instance: str, system_dir: str, config_dir: str, engine: str = "vllm") -> t.List[str]:
    """Return the files that decide how one instance runs, in a fixed order."""
    drop_ins = sorted(glob.glob(os.path.join(system_dir, "%s@%s.service.d" % (engine, instance), "*.conf")))
    config = os.path.join(config_dir, instance, CONFIG_NAMES[engine])
    return [os.path.join(system_dir, engine + "@.service"), *drop_ins, config]


def unlisted(system_dir: str, names: t.Sequence[str], engine: str = "vllm") -> t.List[str]:
    """Return the instances that have a configuration of their own on the host and aren't among the names."""
    prefix, suffix = engine + "@", ".service.d"
    found = glob.glob(os.path.join(system_dir, prefix + "*" + suffix))
    return sorted({os.path.basename(path)[len(prefix) : -len(suffix)] for path in found} - set(names))


def digest(paths: t.Sequence[str]) -> str:
    """Return one sha256 over the names and contents of files; one that isn't there counts as such."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(path.encode() + b"\0")
        try:
            with open(path, "rb") as handle:
                whole.update(hashlib.sha256(handle.read()).digest())
        except OSError:
            whole.update(b"absent")
    return whole.hexdigest()


def note_start(directory: str, wanted: str) -> None:
    """Write down that a start with the files of this digest is about to be asked for, and when.

    Call it after systemd has read the units anew. The note lies beside the record of what served.
    """
    os.makedirs(os.path.dirname(directory), mode=0o700, exist_ok=True)
    with open(directory + PENDING + ".new", "w", encoding="utf-8") as handle:
        json.dump({"digest": wanted, "boot_id": boot_id(), "monotonic_seconds": time.monotonic()}, handle)
    os.replace(directory + PENDING + ".new", directory + PENDING)


def boot_id() -> str:
    """Return what tells this boot from another, empty where the kernel doesn't say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            return handle.read().strip()
    except OSError:
        return ""


def on_its_way(directory: str, unit: t.Mapping[str, str], wanted: str) -> bool:
    """Return whether an earlier run asked for a start with these very files, and that start is under way.

    An engine takes its time to start, and ignores a stop while it does: to restart it again would only cost more.
    """
    try:
        with open(directory + PENDING, encoding="utf-8") as handle:
            note = json.load(handle)
        asked = float(note["monotonic_seconds"])
        if (note["digest"], note["boot_id"]) != (wanted, boot_id()) or unit.get("NeedDaemonReload") != "no":
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if unit.get("ActiveState") == "deactivating":
        return unit.get("Job", "0") not in ("", "0")
    began = int(unit.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
    return unit.get("ActiveState") in ("active", "activating") and began >= asked


def read_record(directory: str) -> t.Dict[str, t.Any]:
    """Return what is known of the last time the instance served, or an empty record."""
    try:
        with open(os.path.join(directory, RECORD), encoding="utf-8") as handle:
            record: t.Dict[str, t.Any] = json.load(handle)
            return record
    except (OSError, ValueError):
        return {}


def keep(directory: str, paths: t.Sequence[str], secret_paths: t.Sequence[str], invocation: str) -> None:
    """Keep the files with which the instance serves, so that a later change which doesn't serve can be undone."""
    staging = directory + ".new"
    shutil.rmtree(staging, ignore_errors=True)
    os.makedirs(staging, mode=0o700)
    kept = {}
    for path in paths:
        if os.path.exists(path):
            name = path.strip("/").replace("/", "%")
            shutil.copy2(path, os.path.join(staging, name))
            kept[name] = path
    record = {
        "digest": digest([*paths, *secret_paths]),
        "invocation_id": invocation,
        "files": kept,
        "at": int(time.time()),
    }
    with open(os.path.join(staging, RECORD), "w", encoding="utf-8") as handle:
        json.dump(record, handle, indent=2, sort_keys=True)
    shutil.rmtree(directory, ignore_errors=True)
    os.rename(staging, directory)


def put_back(directory: str, paths: t.Sequence[str]) -> t.List[str]:
    """Put back the files with which the instance last served; return those that differed.

    A file that is there now and wasn't then is removed, for it would change how the instance runs.
    """
    files = read_record(directory).get("files") or {}
    changed = []
    for name, path in sorted(files.items()):
        saved = os.path.join(directory, name)
        if _same(saved, path):
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy2(saved, path + ".new")
        os.replace(path + ".new", path)
        changed.append(path)
    if files:
        for path in paths:
            if path not in files.values() and os.path.exists(path):
                os.unlink(path)
                changed.append(path)
    return changed


def _same(one: str, other: str) -> bool:
    try:
        with open(one, "rb") as left, open(other, "rb") as right:
            return left.read() == right.read()
    except OSError:
        return False
