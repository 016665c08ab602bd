# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx with the role's files, engines without a model, and how to reload, break and look at them.

Runs inside the namespaces that run.sh makes, where /run/proxyrig/root is a Debian system that is thrown away.
"""

from __future__ import annotations

import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import typing as t

from proxyrig import identity, rendering

ROOT = pathlib.Path("/run/proxyrig/root")
ENGINE = rendering.HERE / "tests/servers/uvicorn_engine.py"
TREE = "/etc/gpufleet/proxy"
PID_FILE = "/run/llm-proxy/nginx.pid"
MODEL, PORT = "mock", 8443
Address = t.Tuple[str, int]


def inside(*argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program of the Debian system, as root in it."""
    done = subprocess.run(["chroot", str(ROOT), *argv], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError("%s: %s%s" % (" ".join(argv), done.stdout, done.stderr))
    return done


def version(package: str) -> str:
    return inside("dpkg-query", "-W", "-f", "${Version}", package).stdout


def cpu_seconds(pids: t.Iterable[int]) -> float:
    """Return the time on a processor of these processes, all their threads, in seconds."""
    spent = 0
    for pid in pids:
        for path in pathlib.Path("/proc/%d/task" % pid).glob("*/schedstat"):
            try:
                spent += int(path.read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that has just ended
    return spent / 1e9


def children(pid: int) -> t.List[int]:
    return [int(word) for word in pathlib.Path("/proc/%d/task/%d/children" % (pid, pid)).read_text().split()]


def wait_for(what: str, happened: t.Callable[[], bool], seconds: float = 15) -> float:
    """Wait until something happened; return how long it took. Raises TimeoutError."""
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > seconds:
            raise TimeoutError("%s: not within %s s" % (what, seconds))
        time.sleep(0.01)
    return time.monotonic() - began


class Engine:
    """An engine without a model; ``path`` is its socket as nginx sees it."""

    def __init__(self, path: str, token_seconds: float = 0.02) -> None:
        self.path, self.token_seconds = path, token_seconds
        self.socket = str(ROOT) + path
        self.process: t.Optional[subprocess.Popen[bytes]] = None

    def start(self) -> Engine:
        pathlib.Path(self.socket).parent.mkdir(parents=True, exist_ok=True)
        arguments = [self.socket, "--model", MODEL, "--token-seconds", str(self.token_seconds)]
        self.process = subprocess.Popen([sys.executable, str(ENGINE), *arguments])
        wait_for("the engine's socket", self.listens)
        os.chmod(self.socket, 0o666)
        return self

    def listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.socket) == 0

    def send_signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 40) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(seconds)


class Rig:
    """The proxy, with one model, behind 127.0.0.1:8443."""

    def __init__(
        self,
        fallback: bool = False,
        limits: t.Optional[t.Mapping[str, int]] = rendering.UNREACHED,
        clients: t.Sequence[str] = ("demo", "other"),
    ) -> None:
        self.authority = identity.Authority(ROOT / "srv/pki")
        self.serials = {name: self.authority.issue(name) for name in clients}
        self.authority.issue("server", server=True)
        self.authority.write_crl()
        keys = {name: identity.new_api_key() for name in clients}
        self.api_keys = {name: key for name, (key, _digest) in keys.items()}
        self.digests = {name: [digest] for name, (_key, digest) in keys.items()}
        self.model: t.Dict[str, t.Any] = {
            "name": MODEL, "slot": "a", "engine": "vllm", "port": PORT, "authorization_include": "",
            "socket": "/run/gpufleet/mock-a/engine.sock",
        }  # fmt: skip
        if fallback:
            self.model["fallback_socket"] = "/run/gpufleet/mock-fallback/engine.sock"
        self.limits = dict(limits or {})
        self.platform = "debian" + (ROOT / "etc/debian_version").read_text().split(".")[0]
        self.pids: t.Set[int] = set()

    def rendered(self, **variables: t.Any) -> t.Dict[str, str]:
        pki = {
            "path": "/srv/pki",
            "files": {name: "/srv/pki/" + name for name in ("ca.crt", "crl.pem", "server.crt", "server.key")},
            "clients": self.digests,
        }
        inputs = {
            "models": [self.model],
            "clients": [{"name": name} for name in self.digests],
            "validate_client": "",
            "server_names": ["localhost", "127.0.0.1"],
            "listen_addresses": ["127.0.0.1"],
            "pki": pki,
        }
        if "admin" in (rendering.TREE / "roles/llm_proxy/defaults/main.yml").read_text():
            inputs["admin_clients"] = [next(iter(self.digests))]
        return rendering.files(inputs, self.limits, self.platform, variables)

    def place(self, rendered: t.Mapping[str, str]) -> None:
        """Write the files, each in one step, and the identity beside them."""
        for name, content in rendered.items():
            self.write(name, content.encode())
        self.place_identity()

    def place_identity(self) -> None:
        for name in ("ca.crt", "crl.pem", "server.crt", "server.key"):
            self.write(TREE + "/tls/" + name, (self.authority.directory / name).read_bytes())

    @staticmethod
    def write(name: str, content: bytes) -> None:
        path = pathlib.Path(str(ROOT) + name)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_bytes(content)
        new.rename(path)

    def start(self, rendered: t.Optional[t.Mapping[str, str]] = None) -> Rig:
        self.place(rendered or self.rendered())
        for directory in ("/run/llm-proxy", "/var/log/gpufleet/proxy", "/run/gpufleet/breakers"):
            pathlib.Path(str(ROOT) + directory).mkdir(parents=True, exist_ok=True)
        inside("chown", "www-data:root", "/var/log/gpufleet/proxy")
        self.nginx("-t", "-q")
        # Its threads are not ours to count: a service of its own, as the unit starts it.
        subprocess.run(["chroot", str(ROOT), *self.command()], check=True, preexec_fn=raise_open_files)
        wait_for("nginx's port", lambda: port_open(PORT))
        return self

    @staticmethod
    def command(*more: str) -> t.List[str]:
        return ["nginx", "-g", "pid %s;" % PID_FILE, "-c", TREE + "/nginx.conf", *more]

    def nginx(self, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return inside(*self.command(*more), check=check)

    @property
    def master(self) -> int:
        return int((ROOT / PID_FILE.lstrip("/")).read_text())

    def workers(self) -> t.List[int]:
        return children(self.master)

    def current_workers(self) -> t.List[int]:
        """Return the workers that take connections; one that has just ended is none."""
        titles = {}
        for pid in self.workers():
            try:
                titles[pid] = pathlib.Path("/proc/%d/cmdline" % pid).read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
        return [pid for pid, title in titles.items() if title and b"shutting" not in title]

    def reload(self, wait: bool = True) -> float:
        """Do what the unit does on a reload; return the seconds until only new workers take connections."""
        before = set(self.current_workers())
        self.nginx("-t", "-q")
        os.kill(self.master, signal.SIGHUP)
        if not wait:
            return 0.0
        return wait_for("new workers", lambda: bool(now := set(self.current_workers())) and not now & before)

    def stop(self) -> None:
        master = self.master
        os.kill(master, signal.SIGTERM)
        wait_for("nginx's end", lambda: not pathlib.Path("/proc/%d" % master).exists() or is_zombie(master))
        wait_for("nginx's port to close", lambda: not port_open(PORT))

    def switch(self, socket_path: str) -> None:
        """Point the model's upstream at another engine's socket, as a switch between slots does."""
        name = "%s/upstreams/%s.conf" % (TREE, MODEL)
        text = pathlib.Path(str(ROOT) + name).read_text()
        changed = re.sub(r"unix:/run/gpufleet/mock-[ab]/engine\.sock", "unix:" + socket_path, text)
        self.write(name, changed.encode())

    def break_circuit(self, opened: bool) -> float:
        """Take the primary out of the upstream, or put it back, as the watchdog does; return the reload's seconds."""
        path = ROOT / "run/gpufleet/breakers" / (MODEL + ".conf")
        if opened:
            self.write("/run/gpufleet/breakers/%s.conf" % MODEL, b'"" down;\n')
        else:
            path.unlink(missing_ok=True)
        return self.reload()

    def access_log(self) -> pathlib.Path:
        return ROOT / "var/log/gpufleet/proxy/access.log"


def raise_open_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def is_zombie(pid: int) -> bool:
    try:
        return ") Z " in pathlib.Path("/proc/%d/stat" % pid).read_text()
    except FileNotFoundError:
        return True


def port_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
