# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Lab hosts from the base they stand on to the ssh that answers: make, look at, reboot, remove."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import typing as t
import uuid

from ansible_collections.gpufleet.llm.plugins.module_utils import _lab_plan
from ansible_collections.gpufleet.llm.plugins.module_utils import _lab_system as system
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import refusal_message
from ansible_collections.gpufleet.llm.plugins.module_utils._lab_plan import (
    BUILDER_VERSION,
    KEYRING,
    MASKED_UNITS,
    PROXY_PORT,
    HostNames,
    HostSpec,
    Network,
    access_map,
    apt_text,
    base_key,
    choose_mirrors,
    debootstrap_argv,
    host_drift,
    hosts_text,
    known_hosts_text,
    nspawn_argv,
    short_hash,
    sources_text,
)
from ansible_collections.gpufleet.llm.plugins.module_utils._lab_system import LabError, run, write_file

BUILD_LOCK_SECONDS = 3600.0
NETWORK_LOCK_SECONDS = 120.0
PROXY_USER = "nobody"
SUPERVISOR = "supervise_host.py"
PROXY = "package_proxy.py"
RESERVED_NAMES = ("ssh", "lost-found")

Result = t.Dict[str, t.Any]


class Settings(t.NamedTuple):
    """The module's inputs, besides which hosts and which state."""

    state_dir: str
    ssh_dir: str
    cache_dir: str
    network: str
    mirror: t.Optional[str]
    security_mirror: t.Optional[str]
    packages: t.List[str]
    package_access: bool
    libexec_dir: str
    boot_timeout_seconds: int
    stop_timeout_seconds: int
    lock_timeout_seconds: int


class Lab:
    """The lab hosts of one state directory."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state_dir = os.path.realpath(settings.state_dir)
        self.network = Network(settings.network)
        self.mirror = settings.mirror
        self.security_mirror = settings.security_mirror
        self.apt_options: t.Dict[str, str] = {}
        self.python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable

    @property
    def lock_file(self) -> str:
        """The lock of the state directory: one run at a time."""
        return os.path.join(self.state_dir, ".lock")

    # -- reading -----------------------------------------------------------------------------------

    def names(self, name: str) -> HostNames:
        """Return a host's machine-wide names."""
        return HostNames(self.state_dir, name)

    def recorded(self, name: str) -> t.Dict[str, t.Any]:
        """Return what a host was made with; empty when it isn't or is only half made."""
        return system.read_json(os.path.join(self.names(name).directory, "host.json"))

    def known(self) -> t.List[str]:
        """Return the names of the hosts in the state directory, half-made ones too."""
        if not os.path.isdir(self.state_dir):
            return []
        return sorted(
            entry
            for entry in os.listdir(self.state_dir)
            if not entry.startswith(".") and entry not in RESERVED_NAMES and os.path.isdir(self.names(entry).directory)
        )

    def running(self, name: str) -> bool:
        """Say whether a host's supervisor, its nspawn, its root and its cable are all there."""
        names = self.names(name)
        return bool(
            names.root in system.mounts_under(names.root)
            and system.find_processes(SUPERVISOR, names.directory)
            and system.find_processes("systemd-nspawn", names.root)
            and system.link_exists(names.veth)
        )

    def state(self, name: str) -> str:
        """Return ``absent``, ``half made``, ``stopped`` or ``running``."""
        if not os.path.isdir(self.names(name).directory):
            return "absent"
        if not self.recorded(name):
            return "half made"
        return "running" if self.running(name) else "stopped"

    def has_access(self, name: str) -> bool:
        """Say whether a host may reach the package mirror, now."""
        address = self.recorded(name).get("address", "-")
        access = os.path.join(self.network.run_dir, "access")
        return os.path.exists(os.path.join(access, str(address))) and bool(system.find_processes(PROXY, access))

    def resolve_mirrors(self) -> None:
        """Settle where packages come from: the inputs, else the control node's own apt sources."""
        self.apt_options = {k: v for k, v in system.apt_options().items() if not k.endswith("Proxy")}
        if self.mirror:
            return
        self.mirror, security = choose_mirrors(system.apt_entries())
        self.security_mirror = self.security_mirror or security
        if not self.mirror:
            raise LabError(
                "lab_host_mirror: not set, and /etc/apt/sources.list and /etc/apt/sources.list.d name no Debian mirror "
                "over http or https with component main. Remedy: set lab_host_mirror (and lab_host_security_mirror) to "
                "the URL of a Debian mirror this machine can reach."
            )

    def chosen_mirror(self) -> str:
        """Return the mirror that resolve_mirrors() chose."""
        if self.mirror is None:
            raise ValueError("no mirror was chosen yet")
        return self.mirror

    def key(self, suite: str) -> str:
        """Return the key of the base a new host of a suite would stand on."""
        return base_key(suite, self.chosen_mirror(), self.security_mirror, self.settings.packages)

    def base(self, key: str) -> str:
        """Return a base's directory."""
        return os.path.join(self.settings.cache_dir, "bases", key)

    def base_built(self, key: str) -> bool:
        """Say whether a base is in the cache; it's moved there whole, so what's there is complete."""
        return os.path.isfile(os.path.join(self.base(key), "base.json"))

    # -- bases -------------------------------------------------------------------------------------

    def build_base(self, suite: str) -> bool:
        """Build a suite's base unless it's cached; return whether it was built."""
        key = self.key(suite)
        if self.base_built(key):
            return False
        bases = os.path.join(self.settings.cache_dir, "bases")
        # The lock's descriptor goes to the builder too: a builder that lost its parent still holds the lock.
        with system.locked(os.path.join(bases, ".%s.lock" % key), BUILD_LOCK_SECONDS) as lock:
            if self.base_built(key):
                return False
            partial = os.path.join(bases, ".%s.partial" % key)
            log = os.path.join(bases, "%s.log" % key)
            system.remove_tree(partial)
            root = os.path.join(partial, "root")
            os.makedirs(root, mode=0o755)
            os.chmod(partial, 0o755)
            os.chmod(root, 0o755)
            started = time.monotonic()
            # Not in the cache: the proxy runs as a user who may not get there.
            scratch = os.path.join(_lab_plan.RUN_DIR, "build-%s-%s" % (key, short_hash(bases)))
            system.remove_tree(scratch)
            os.makedirs(scratch, mode=0o755)
            with open(log, "wb") as handle:
                proxy = self.start_build_proxy(scratch, handle)
                try:
                    self.fill_base(suite, root, proxy, handle, lock)
                finally:
                    self.stop_build_proxy(scratch)
                    system.remove_tree(scratch)
            made = {
                "suite": suite,
                "mirror": self.mirror,
                "security_mirror": self.security_mirror,
                "packages": sorted(self.settings.packages),
                "builder": BUILDER_VERSION,
                "seconds": round(time.monotonic() - started, 1),
            }
            write_file(os.path.join(partial, "base.json"), json.dumps(made, indent=2, sort_keys=True) + "\n")
            os.replace(partial, self.base(key))
        return True

    def proxy_environment(self) -> t.Dict[str, str]:
        """Return the environment by which the package proxy goes out the way the control node's apt does."""
        found = {k: v for k, v in os.environ.items() if k.lower() in ("http_proxy", "https_proxy", "no_proxy")}
        proxy = system.apt_options().get("Acquire::http::Proxy", "")
        if proxy.startswith("http") and "http_proxy" not in found:
            found["http_proxy"] = proxy
        return found

    def start_build_proxy(self, scratch: str, log: t.IO[bytes]) -> str:
        """Start a package proxy for this machine alone; return its URL."""
        access = os.path.join(scratch, "access")
        os.mkdir(access, 0o755)
        allowed = access_map([self.mirror, self.security_mirror])
        write_file(os.path.join(access, "127.0.0.1"), json.dumps(allowed))
        port_file = os.path.join(scratch, "port")
        process = subprocess.Popen(
            [
                *(self.python, os.path.join(self.settings.libexec_dir, PROXY), "--end-with-parent"),
                *("--listen", "127.0.0.1:0", "--access-dir", access, "--port-file", port_file),
                *("--cache-dir", os.path.join(self.settings.cache_dir, "packages"), "--user", PROXY_USER),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": system.tool_path(), **self.proxy_environment()},
        )
        if not system.wait_for(lambda: os.path.exists(port_file) or process.poll() is not None, 20.0):
            raise LabError("the package proxy for the build didn't start")
        if process.poll() is not None:
            raise LabError("the package proxy for the build ended: %s" % system.tail(log.name))
        return "http://127.0.0.1:%s" % system.read_text(port_file).strip()

    def stop_build_proxy(self, scratch: str) -> None:
        """End the proxy that was started for a build."""
        access = os.path.join(scratch, "access")
        for pid in system.find_processes(PROXY, access):
            system.send_signal(pid, signal.SIGTERM, PROXY, access)

    def fill_base(self, suite: str, root: str, proxy: str, log: t.IO[bytes], lock: int) -> None:
        """Fill a base's root: debootstrap, the extra packages, the settings every host shares."""
        mirror = self.chosen_mirror()
        script: t.Optional[str] = None
        scripts = "/usr/share/debootstrap/scripts"
        if not os.path.exists(os.path.join(scripts, suite)):
            script = os.path.join(scripts, "sid")  # what debootstrap itself links every Debian suite to
        self.build_step(debootstrap_argv(suite, root, mirror, script), proxy, log, lock, "debootstrap of %s" % suite)
        write_file(os.path.join(root, "etc/apt/sources.list.d/debian.sources"), self.sources(suite))
        for path in ("etc/apt/sources.list", "etc/resolv.conf", "etc/hostname"):
            if os.path.lexists(os.path.join(root, path)):
                os.unlink(os.path.join(root, path))
        if self.settings.packages:
            self.install_extra(root, proxy, log, lock)
        for unit in MASKED_UNITS:
            link = os.path.join(root, "etc/systemd/system", unit)
            if os.path.lexists(link):
                os.unlink(link)
            os.symlink("/dev/null", link)
        # What must differ from host to host isn't in a base.
        keys = os.path.join(root, "etc/ssh")
        for entry in os.listdir(keys):
            if entry.startswith("ssh_host_"):
                os.unlink(os.path.join(keys, entry))
        write_file(os.path.join(root, "etc/machine-id"), "", 0o444)
        write_file(os.path.join(root, "etc/default/locale"), "LANG=C.UTF-8\n")
        for path in ("var/cache/apt/archives", "var/lib/apt/lists"):
            for found in os.scandir(os.path.join(root, path)):
                if found.is_file(follow_symlinks=False) and found.name != "lock":
                    os.unlink(found.path)

    def sources(self, suite: str) -> str:
        """Return the apt sources of a suite's hosts."""
        return sources_text(suite, self.chosen_mirror(), self.security_mirror)

    def install_extra(self, root: str, proxy: str, log: t.IO[bytes], lock: int) -> None:
        """Install lab_host_packages in a base, with its own apt, over the machine's network."""
        options = ["-o", "Acquire::http::Proxy=%s" % proxy, "-o", "Acquire::Languages=none"]
        for key, value in sorted(self.apt_options.items()):
            options.extend(("-o", "%s=%s" % (key, value)))
        enter = [
            *("setpriv", "--pdeathsig", "TERM", "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe"),
            *("-D", root, "--resolv-conf=off", "--timezone=off", "--setenv=DEBIAN_FRONTEND=noninteractive"),
        ]
        install = ["install", "--yes", "--no-install-recommends", *self.settings.packages]
        for arguments in (["update"], install):
            self.build_step([*enter, "apt-get", *options, *arguments], proxy, log, lock, "apt-get %s" % arguments[0])

    def build_step(self, argv: t.Sequence[str], proxy: str, log: t.IO[bytes], lock: int, what: str) -> None:
        """Run one step of a build with its output in the build's log."""
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": system.tool_path(), "LC_ALL": "C", "http_proxy": proxy, "HOME": "/root"},
            pass_fds=(lock,),
            check=False,
        )
        if done.returncode:
            raise LabError(
                "%s from %s ended with %d. Remedy: see %s; lab_host_mirror must be a Debian mirror that this machine "
                "reaches and whose signature is in %s. The end of the log:\n%s"
                % (what, self.mirror, done.returncode, log.name, KEYRING, system.tail(log.name))
            )

    # -- ssh ---------------------------------------------------------------------------------------

    @property
    def ssh_key(self) -> str:
        """The private key that opens the lab's hosts."""
        return os.path.join(self.settings.ssh_dir, "id_ed25519")

    @property
    def known_hosts(self) -> str:
        """The file with the host keys of the lab's hosts."""
        return os.path.join(self.settings.ssh_dir, "known_hosts")

    def ensure_ssh_key(self) -> bool:
        """Make the lab's key unless it's there; return whether it was made."""
        os.makedirs(self.settings.ssh_dir, mode=0o700, exist_ok=True)
        os.chmod(self.settings.ssh_dir, 0o700)
        if os.path.exists(self.ssh_key) and os.path.exists(self.ssh_key + ".pub"):
            return False
        self.make_key(self.ssh_key, "gpufleet-lab")
        return True

    def make_key(self, path: str, comment: str) -> None:
        """Make an ed25519 key pair, in place of a half-made one."""
        for old in (path, path + ".pub"):
            if os.path.exists(old):
                os.unlink(old)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path])

    def write_known_hosts(self) -> bool:
        """Write known_hosts for all hosts of the state directory; return whether that changed it."""
        hosts: t.Dict[str, t.Tuple[str, str]] = {}
        for name in self.known():
            recorded = self.recorded(name)
            if recorded:
                hosts[name] = (recorded["address"], recorded["host_key"])
        return write_file(self.known_hosts, known_hosts_text(hosts), 0o600)

    def ssh(self, address: str, command: str, timeout_seconds: float) -> "subprocess.CompletedProcess[str]":
        """Run a command on a host over ssh as root."""
        options = {
            "IdentityFile": self.ssh_key,
            "UserKnownHostsFile": self.known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ControlMaster": "no",
            "ControlPath": "none",
            "ConnectTimeout": "5",
        }
        arguments = [word for key, value in options.items() for word in ("-o", "%s=%s" % (key, value))]
        return run(
            ["ssh", "-F", "/dev/null", *arguments, "root@%s" % address, command],
            check=False,
            timeout_seconds=timeout_seconds,
        )

    # -- hosts -------------------------------------------------------------------------------------

    def refuse_drift(self, hosts: t.Sequence[HostSpec]) -> None:
        """Refuse what's asked for when a host is there and is something else."""
        bad = []
        for host in hosts:
            recorded = self.recorded(host["name"])
            if recorded:
                bad.extend(host_drift(host, recorded, str(self.network.network)))
        if bad:
            raise LabError(refusal_message(bad, "lab_host"))

    def claim_address(self, host: HostSpec) -> None:
        """Take a host's address on the bridge, which other state directories may use too. Call it locked."""
        directory = os.path.join(self.network.run_dir, "hosts")
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, host["address"])
        holder = system.read_json(path)
        mine = {"state_dir": self.state_dir, "name": host["name"]}
        if holder and holder != mine:
            other = HostNames(str(holder.get("state_dir")), str(holder.get("name")))
            if os.path.isdir(other.directory):
                raise LabError(
                    "lab_host_hosts[%s].address: %s belongs to host %s of %s. Remedy: choose a free address, "
                    "or destroy that host."
                    % (host["name"], host["address"], holder.get("name"), holder.get("state_dir"))
                )
        write_file(path, json.dumps(mine))

    def make_files(self, host: HostSpec) -> None:
        """Make a host's own files: what differs from its base. The record is written last: with it the host is made."""
        names = self.names(host["name"])
        self.clear(host["name"])
        upper = os.path.join(names.directory, "upper")
        for path, mode in (
            ("", 0o755),
            ("etc", 0o755),
            ("etc/ssh", 0o755),
            ("etc/apt", 0o755),
            ("etc/apt/apt.conf.d", 0o755),
            ("root", 0o700),
            ("root/.ssh", 0o700),
        ):
            os.makedirs(os.path.join(upper, path), exist_ok=True)
            os.chmod(os.path.join(upper, path), mode)
        os.chmod(names.directory, 0o700)
        key = os.path.join(upper, "etc/ssh/ssh_host_ed25519_key")
        self.make_key(key, host["name"])
        write_file(os.path.join(upper, "etc/hostname"), host["name"] + "\n")
        write_file(os.path.join(upper, "etc/hosts"), hosts_text(host["name"]))
        write_file(os.path.join(upper, "etc/resolv.conf"), "")
        write_file(os.path.join(upper, "etc/machine-id"), uuid.uuid4().hex + "\n", 0o444)
        write_file(
            os.path.join(upper, "etc/apt/apt.conf.d/90gpufleet-lab"), apt_text(self.network.gateway, self.apt_options)
        )
        write_file(os.path.join(upper, "root/.ssh/authorized_keys"), system.read_text(self.ssh_key + ".pub"), 0o600)
        record = {
            **host,
            "network": str(self.network.network),
            "base": self.key(host["suite"]),
            "base_dir": self.base(self.key(host["suite"])),
            "host_key": system.read_text(key + ".pub").strip(),
            "mirrors": [m for m in (self.mirror, self.security_mirror) if m],
        }
        write_file(
            os.path.join(names.directory, "host.json"), json.dumps(record, indent=2, sort_keys=True) + "\n", 0o600
        )

    def start(self, name: str) -> bool:
        """Start a made host unless it runs; return whether it was started."""
        if self.running(name):
            return False
        names = self.names(name)
        recorded = self.recorded(name)
        self.stop(name)
        if not os.path.isdir(os.path.join(recorded["base_dir"], "root")):
            raise LabError(
                "host %s stands on the base %s, which isn't there any more. "
                "Remedy: destroy the host and create it again." % (name, recorded["base_dir"])
            )
        with self.network_lock():
            system.ensure_network(self.network)
            system.ensure_namespace(names, self.network, recorded["address"])
        system.mount_overlay(os.path.join(recorded["base_dir"], "root"), names.directory, names.root)
        supervisor = [self.python, os.path.join(self.settings.libexec_dir, SUPERVISOR), names.directory]
        system.start_detached(
            [*supervisor, *nspawn_argv(names, name)],
            names.unit,
            os.path.join(names.directory, "console.log"),
            {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
        )
        return True

    def stop(self, name: str) -> bool:
        """Power a host off; what doesn't end in time is killed. Return whether anything ran."""
        names = self.names(name)
        limit = float(self.settings.stop_timeout_seconds)
        stopped = system.stop_processes(SUPERVISOR, names.directory, limit)
        # Left over when a supervisor was killed.
        return system.stop_processes("systemd-nspawn", names.root, limit) or stopped

    def clear(self, name: str) -> bool:
        """Remove a host's processes, mounts, network and files; return whether there was anything."""
        names = self.names(name)
        changed = self.stop(name)
        changed = system.unmount(names.root) or changed
        with self.network_lock():
            changed = system.remove_namespace(names) or changed
        for kind in ("propagate", "unix-export"):
            left = os.path.join(system.NSPAWN_DIR, kind, names.machine)
            if os.path.isdir(left):
                system.unmount(left)
                shutil.rmtree(left, ignore_errors=True)
        return system.remove_tree(names.directory) or changed

    def network_lock(self) -> t.ContextManager[int]:
        """Hold what several state directories share: the bridge, its ruleset, the package proxy."""
        return system.locked(self.network.run_dir + ".lock", NETWORK_LOCK_SECONDS)

    def wait_ready(self, name: str) -> Result:
        """Wait until a host's systemd has booted and ssh answers; return its state and failed units."""
        names = self.names(name)
        address = str(self.recorded(name)["address"])
        log = os.path.join(names.directory, "console.log")
        started = time.monotonic()
        limit = float(self.settings.boot_timeout_seconds)

        def settled() -> bool:
            return system.says_ssh(address) or not system.find_processes(SUPERVISOR, names.directory)

        # A moment for the supervisor to be there at all.
        system.wait_for(lambda: bool(system.find_processes(SUPERVISOR, names.directory)), 5.0)
        if not system.wait_for(settled, limit) or not system.says_ssh(address):
            raise LabError(
                "host %s: ssh at %s didn't answer within %d s. Remedy: see %s. Its end:\n%s"
                % (name, address, limit, log, system.tail(log))
            )
        command = "systemctl is-system-running --wait; systemctl list-units --state=failed --plain --no-legend --full"
        done = self.ssh(address, command, limit)
        lines = done.stdout.splitlines()
        if done.returncode == 255 or not lines:
            raise LabError(
                "host %s: ssh root@%s failed: %s. Remedy: see %s." % (name, address, done.stderr.strip(), log)
            )
        return {
            "system": lines[0].strip(),
            "failed_units": [line.split()[0] for line in lines[1:] if line.strip()],
            "boot_seconds": round(time.monotonic() - started, 2),
        }

    # -- package access ----------------------------------------------------------------------------

    def set_access(self, names: t.Sequence[str], allowed: bool) -> bool:
        """Let hosts reach the package mirror, or not; the proxy runs while any host may. Return whether it changed."""
        changed = False
        access = os.path.join(self.network.run_dir, "access")
        with self.network_lock():
            for name in names:
                recorded = self.recorded(name)
                path = os.path.join(access, str(recorded.get("address", "-")))
                if allowed and recorded:
                    changed = write_file(path, json.dumps(access_map(recorded["mirrors"]), sort_keys=True)) or changed
                elif os.path.exists(path):
                    os.unlink(path)
                    changed = True
            return self.settle_proxy() or changed

    def settle_proxy(self) -> bool:
        """Run the package proxy if any host may use it, else not; return whether that changed. Call it locked."""
        access = os.path.join(self.network.run_dir, "access")
        wanted = os.path.isdir(access) and bool(os.listdir(access))
        there = bool(system.find_processes(PROXY, access))
        if wanted == there:
            return False
        if not wanted:
            return system.stop_processes(PROXY, access, 10.0)
        log = os.path.join(self.network.run_dir, "package_proxy.log")
        listening = os.path.join(self.network.run_dir, "port")
        if os.path.exists(listening):
            os.unlink(listening)
        argv = [
            *(self.python, os.path.join(self.settings.libexec_dir, PROXY)),
            *("--listen", "%s:%d" % (self.network.gateway, PROXY_PORT), "--access-dir", access),
            *("--cache-dir", os.path.join(self.settings.cache_dir, "packages"), "--user", PROXY_USER),
            *("--port-file", listening),
        ]
        system.start_detached(argv, self.network.unit, log, self.proxy_environment())
        if not system.wait_for(lambda: os.path.exists(listening), 20.0):
            raise LabError("the package proxy didn't start. Remedy: see %s. Its end:\n%s" % (log, system.tail(log)))
        return True

    # -- the states --------------------------------------------------------------------------------

    def each(self, function: t.Callable[[str], t.Any], names: t.Sequence[str]) -> t.Dict[str, t.Any]:
        """Do something for all hosts at once; all failures are said together."""
        results: t.Dict[str, t.Any] = {}
        failures: t.List[str] = []
        with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, min(8, len(names)))) as pool:
            futures = {name: pool.submit(function, name) for name in names}
            for name, future in futures.items():
                try:
                    results[name] = future.result()
                except LabError as exc:
                    failures.append(str(exc))
        if failures:
            raise LabError("\n".join(failures))
        return results

    def build_bases(self, suites: t.Sequence[str]) -> bool:
        """Build the bases that aren't cached, at once."""
        return any(self.each(self.build_base, sorted(set(suites))).values())

    def present(self, hosts: t.Sequence[HostSpec]) -> t.Tuple[bool, t.Dict[str, Result]]:
        """Have hosts made, running and answering."""
        wanted = {host["name"]: host for host in hosts}
        changed = self.build_bases([h["suite"] for h in hosts if not self.recorded(h["name"])])
        changed = self.ensure_ssh_key() or changed
        with self.network_lock():
            changed = system.ensure_network(self.network) or changed
            for host in hosts:
                self.claim_address(host)

        def make(name: str) -> bool:
            if self.recorded(name):
                return False
            self.make_files(wanted[name])
            return True

        changed = any(self.each(make, list(wanted)).values()) or changed
        changed = self.write_known_hosts() or changed
        changed = self.set_access(list(wanted), self.settings.package_access) or changed
        changed = any(self.each(self.start, list(wanted)).values()) or changed
        return changed, self.each(self.wait_ready, list(wanted))

    def rebooted(self, names: t.Sequence[str]) -> t.Dict[str, Result]:
        """Reboot running hosts in an orderly way and wait until they answer again."""

        def reboot(name: str) -> Result:
            directory = self.names(name).directory
            before = system.read_text(os.path.join(directory, "boots"))
            done = self.ssh(str(self.recorded(name)["address"]), "systemctl reboot", 30.0)
            limit = float(self.settings.boot_timeout_seconds)
            if not system.wait_for(lambda: system.read_text(os.path.join(directory, "boots")) != before, limit):
                raise LabError("host %s didn't reboot within %d s: %s" % (name, limit, done.stderr.strip()))
            return self.wait_ready(name)

        return self.each(reboot, names)

    def absent(self, names: t.Sequence[str]) -> bool:
        """Have hosts gone, and with the last one on it the network too."""
        addresses = {name: str(self.recorded(name).get("address", "")) for name in names}
        changed = self.set_access(names, False)
        changed = any(self.each(self.clear, names).values()) or changed
        with self.network_lock():
            claims = os.path.join(self.network.run_dir, "hosts")
            for entry in os.listdir(claims) if os.path.isdir(claims) else []:
                holder = system.read_json(os.path.join(claims, entry))
                if holder.get("state_dir") == self.state_dir and holder.get("name") in addresses:
                    os.unlink(os.path.join(claims, entry))
                    changed = True
            changed = self.settle_proxy() or changed
            changed = system.remove_network_if_unused(self.network) or changed
        if self.known():
            return self.write_known_hosts() or changed
        for path in (self.ssh_key, self.ssh_key + ".pub", self.known_hosts):
            if os.path.exists(path):
                os.unlink(path)
                changed = True
        with contextlib.suppress(OSError):
            os.rmdir(self.settings.ssh_dir)
        system.remove_lock(self.lock_file)
        return changed
