# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine in a directory, for the lab to make its hosts on.

Real: the module, its locks and files, ssh-keygen, the supervisor and the processes, which are known by /proc. Not real:
the kernel's part (links, namespaces, mounts, rulesets) and what boots, which machine/stand_in.sh stands in for, and the
package proxy, which has tests of its own.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import typing as t

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.llm.plugins.module_utils import _lab_plan as plan
from ansible_collections.gpufleet.llm.plugins.module_utils import _lab_system as system
from ansible_collections.gpufleet.llm.plugins.modules import lab_host

HERE = pathlib.Path(__file__).resolve().parent
SUPERVISOR = HERE.parents[2] / "roles/lab_host/files/supervise_host.py"
PROGRAMS = (
    *("ip", "nft", "mount", "umount", "setpriv", "debootstrap"),
    *("systemd-nspawn", "systemd-run", "systemctl", "ssh"),
)
PROXY = """
import sys, time
words = dict(zip(sys.argv[1::], sys.argv[2::]))
if "mute" in open(words["--access-dir"] + "/../../proxy-mode").read():
    sys.exit("the proxy is mute")
open(words["--port-file"], "w").write("4711\\n")
print("listening", flush=True)
time.sleep(60)
"""
NETWORK = "127.77.0.0/28"


class Machine:
    """A control node in a directory."""

    def __init__(self, root: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.capsys = capsys
        self.state_dir = root / "lab"
        for name in ("bin", "net", "netns", "nft", "ssh", "run", "nspawn", "libexec"):
            (root / name).mkdir()
        for program in PROGRAMS:
            (root / "bin" / program).symlink_to(HERE / "machine/stand_in.sh")
        (root / "libexec/supervise_host.py").symlink_to(SUPERVISOR)
        (root / "libexec/package_proxy.py").write_text(PROXY)
        (root / "run/proxy-mode").write_text("")
        (root / "mounts").write_text("")
        (root / "addresses.json").write_text("[]")
        (root / "says").write_text("running\n")

    def names(self, host: str) -> plan.HostNames:
        return plan.HostNames(str(self.state_dir), host)

    def network(self) -> plan.Network:
        return plan.Network(NETWORK)

    def call(self, state: str, *hosts: str, **arguments: t.Any) -> dict[str, t.Any]:
        """Run the module; a host is ``name@last number of its address``."""
        split = [host.partition("@") for host in hosts]
        given = {
            "state": state,
            "hosts": [{"name": name, "suite": "bookworm", "address": "127.77.0.%s" % n} for name, _at, n in split],
            "state_dir": str(self.state_dir),
            "ssh_dir": str(self.root / "keys"),
            "cache_dir": str(self.root / "cache"),
            "libexec_dir": str(self.root / "libexec"),
            "network": NETWORK,
            "mirror": "http://mirror.example/debian/",
            "boot_timeout_seconds": 20,
            "stop_timeout_seconds": 5,
            "lock_timeout_seconds": 1,
            **arguments,
        }
        self.capsys.readouterr()
        with patch_module_args(given), pytest.raises(SystemExit):
            lab_host.main()
        return t.cast("dict[str, t.Any]", json.loads(self.capsys.readouterr().out))

    def log(self) -> list[str]:
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    def fail(self, *rules: str) -> None:
        """Have calls fail: each rule is ``PATTERN => what it says``; none has all work again."""
        (self.root / "fail").write_text("".join(rule + "\n" for rule in rules))

    def processes(self) -> list[str]:
        """Return the command lines of what runs for this machine."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if any(str(self.root) in word for word in words) and entry.name != str(os.getpid()):
                found.append(" ".join(words))
        return found

    def kill(self, program: str, argument: str, number: int = signal.SIGKILL) -> int:
        """End what runs a program with an argument, as nobody should; return its process id."""
        (pid,) = system.find_processes(program, argument)
        os.kill(pid, number)
        assert system.wait_for(lambda: not system.find_processes(program, argument), 10)
        return pid


def settle(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the lab see this machine in place of the real one."""
    monkeypatch.setenv("PATH", "%s:%s" % (root / "bin", os.environ["PATH"]))
    monkeypatch.setattr(plan, "RUN_DIR", str(root / "run"))
    monkeypatch.setattr(plan, "NETNS_DIR", str(root / "netns"))
    monkeypatch.setattr(system, "NET_DIR", str(root / "net"))
    monkeypatch.setattr(system, "MOUNTS_FILE", str(root / "mounts"))
    monkeypatch.setattr(system, "NSPAWN_DIR", str(root / "nspawn"))
    monkeypatch.setattr(system, "says_ssh", lambda address: (root / "ssh" / address).exists())
    monkeypatch.setattr(system, "pid_one_is_systemd", lambda: False)
    monkeypatch.setattr(system, "missing_packages", list)
    monkeypatch.setattr(system, "apt_options", dict)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
