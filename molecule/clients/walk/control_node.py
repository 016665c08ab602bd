# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A control node whose plays are run as a person runs them, and a caller on another machine that never stops."""

from __future__ import annotations

import dataclasses
import datetime
import http.client
import json
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import threading
import time
import typing as t

PORT = 8443
FILES = ("ca.crt", "client.crt", "client.key", "api_key")
ROOT = pathlib.Path(__file__).resolve().parents[3]
EPHEMERAL = pathlib.Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PKI = EPHEMERAL / "control" / "pki"


@dataclasses.dataclass
class Caller:
    """A client's own machine: it has what was handed over to it, and nothing else."""

    address: str
    folder: pathlib.Path

    def take(self, name: str, *files: str) -> None:
        """Be handed files of the control node, and use them from one moment on, all together."""
        fresh = self.folder.with_name("%s.%d" % (self.folder.name, time.monotonic_ns()))
        if self.folder.exists():
            shutil.copytree(self.folder, fresh)
        else:
            fresh.mkdir()
        for file in files or FILES:
            shutil.copy(PKI / file if file == "ca.crt" else PKI / "clients" / name / file, fresh / file)
        link = fresh.with_name(fresh.name + ".link")
        link.symlink_to(fresh)
        link.rename(self.folder)

    def connect(self, folder: pathlib.Path) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(str(folder / "client.crt"), str(folder / "client.key"))
        return http.client.HTTPSConnection(self.address, PORT, timeout=30, context=context)

    def call(self, tokens: int = 0) -> str:
        """Ask for the models, or for a stream of tokens. Returns the status, or what went wrong."""
        folder = self.folder.resolve()
        key = (folder / "api_key").read_text().strip()
        headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
        try:
            connection = self.connect(folder)
            if tokens:
                body = {"model": "mock", "prompt": "x", "max_tokens": tokens, "stream": True, "ignore_eos": True}
                connection.request("POST", "/v1/completions", json.dumps(body), headers)
            else:
                connection.request("GET", "/v1/models", headers=headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
        except (OSError, http.client.HTTPException) as exc:
            return repr(exc)
        if answer.status != 200:
            return "%d %s" % (answer.status, json.loads(content)["error"]["code"])
        if tokens and not content.rstrip().endswith(b"data: [DONE]"):
            return "stream ends with %r" % content[-60:]
        return "200"


class Calls:
    """Calls of one caller that go on until they are stopped; every one of them must be answered with 200."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.failures: list[str] = []
        self.counts = {"requests": 0, "streams": 0}
        self.stopped = threading.Event()
        self.end = time.monotonic() + 1200
        self.turn = threading.Lock()
        work = [("requests", 0, 0.2), *[("streams", 150, 0.0)] * 6]
        self.threads = [threading.Thread(target=self.go, args=given) for given in work]

    def go(self, kind: str, tokens: int, pause: float) -> None:
        while not self.stopped.is_set() and time.monotonic() < self.end:
            said = self.caller.call(tokens)
            with self.turn:
                self.counts[kind] += 1
                if said != "200":
                    self.failures.append("%s %d: %s" % (kind, self.counts[kind], said))
            time.sleep(pause)

    def __enter__(self) -> Calls:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@dataclasses.dataclass
class Play:
    """What a run of a play said."""

    rc: int
    output: str

    def changed(self) -> int:
        counts = re.findall(r"\bchanged=(\d+)", self.output.rsplit("PLAY RECAP", 1)[-1])
        assert counts, self.output
        return sum(map(int, counts))


def start(playbook: str, *options: str, **variables: t.Any) -> subprocess.Popen[str]:
    argv = ["ansible-playbook", "-i", str(EPHEMERAL / "inventory"), "gpufleet.llm." + playbook, *options]
    argv += ["-e", json.dumps(variables)]
    # Molecule asks for colours, which would stand between the words that are looked for.
    plain = {name: value for name, value in os.environ.items() if name not in ("ANSIBLE_FORCE_COLOR", "PY_COLORS")}
    plain["ANSIBLE_NOCOLOR"] = "1"
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=plain)


def end(process: subprocess.Popen[str]) -> Play:
    output, _nothing = process.communicate(timeout=180)
    return Play(process.returncode, output)


def play(playbook: str, *options: str, **variables: t.Any) -> Play:
    """Run a playbook of the collection as a person does."""
    return end(start(playbook, *options, **variables))


def clients(action: str, names: str = "", *options: str, **variables: t.Any) -> Play:
    """Run manage_clients; it must succeed."""
    given = {"llm_pki_client_%s" % name: value for name, value in variables.items()}
    done = play("manage_clients", *options, llm_pki_client_action=action, llm_pki_client_names=names, **given)
    assert done.rc == 0, done.output
    return done


def short_list(seconds: float) -> str:
    """Return revocation lists that end soon, as the control node would sign them; the directory keeps its own."""
    from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

    _AnsibleCollectionFinder(paths=[str(ROOT / "collections")])._install()
    from ansible_collections.gpufleet.llm.plugins.module_utils import _pki_make

    path = PKI / "crl.pem"
    kept = path.read_bytes()
    now = datetime.datetime.now(datetime.timezone.utc)
    _pki_make.renew_crl(_pki_make.Directory(str(PKI), now, crl_lifetime=datetime.timedelta(seconds=seconds)))
    short = path.read_text()
    path.write_bytes(kept)
    return short
