#!/usr/bin/python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the silicon and the kernel would say, on a host that has neither: PCI devices, modules, Secure Boot.

  gpu_stand_in.py install             put it in the place of modprobe, rmmod, modinfo, dkms, mokutil and nvidia-ctk
  gpu_stand_in.py set KEY=JSON ...    change the state; keys: see STATE
  gpu_stand_in.py boot                what a boot does: the module on disk becomes the loaded one, unless it's refused

Called by one of those names it does what that program would do to this state, and fails as it would. The module on disk
is the one of the installed kernel module package: what apt did is real, and shows here.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path("/var/lib/gpu-stand-in")
NAMES = ("modprobe", "rmmod", "modinfo", "dkms", "mokutil", "nvidia-ctk")
STATE = {
    "gpus": [],  # PCI device ids
    "loaded": None,  # version in memory
    "in_use": False,  # rmmod says that the module is in use
    "secure_boot": False,
    "signer": "",  # who signed the module on disk
    "serial": "5A:E8:01",
    "enrolled": [],  # serial numbers the firmware knows
    "built": True,  # whether DKMS built the module
}
UNIT = """[Unit]
Description=What the silicon and the kernel would say
DefaultDependencies=no
After=local-fs.target
Before=basic.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/gpu_stand_in.py boot

[Install]
WantedBy=sysinit.target
"""


def load() -> dict:
    path = HOME / "state.json"
    return {**STATE, **(json.loads(path.read_text()) if path.exists() else {})}


def save(state: dict) -> None:
    HOME.mkdir(exist_ok=True)
    (HOME / "state.json").write_text(json.dumps(state))


def kernel() -> str:
    return os.uname().release


def on_disk() -> tuple[str, str]:
    """The version and licence of the module that the installed package would have built."""
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${db:Status-Status}\n", "nvidia-kernel*-dkms"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for line in shown.splitlines():
        name, version, status = line.split("\t")
        if status == "installed":
            return re.split(r"[-~]", version.split(":")[-1])[0], "Dual MIT/GPL" if "open" in name else "NVIDIA"
    return "", ""


def mounted(path: str) -> bool:
    return any(line.split()[1] == path for line in Path("/proc/mounts").read_text().splitlines())


def appear() -> None:
    """Make /sys, /proc and /boot say what the state says."""
    state = load()
    subprocess.run(["mount", "-o", "remount,rw", "/sys"], check=True)
    for path in ("/sys/module", "/sys/firmware", "/sys/bus/pci/devices", "/proc/driver"):
        if path.startswith("/sys"):
            os.makedirs(path, exist_ok=True)
        if not mounted(path):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path], check=True)
    for address in os.listdir("/sys/bus/pci/devices"):
        shutil.rmtree("/sys/bus/pci/devices/" + address)
    for number, device in enumerate(state["gpus"]):
        folder = Path("/sys/bus/pci/devices/0000:%02x:00.0" % (number + 1))
        folder.mkdir()
        (folder / "vendor").write_text("0x10de\n")
        (folder / "device").write_text("0x%s\n" % device)
        (folder / "class").write_text("0x030200\n")
    shutil.rmtree("/sys/firmware/efi", ignore_errors=True)
    if state["secure_boot"]:
        os.makedirs("/sys/firmware/efi/efivars")
        variable = Path("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
        variable.write_bytes(b"\x06\0\0\0\x01")
    for name in ("nvidia", "nvidia_uvm"):
        shutil.rmtree("/sys/module/" + name, ignore_errors=True)
    shutil.rmtree("/proc/driver/nvidia", ignore_errors=True)
    if state["loaded"]:
        for name in ("nvidia", "nvidia_uvm"):
            os.makedirs("/sys/module/" + name)
        Path("/sys/module/nvidia/version").write_text(state["loaded"] + "\n")
        Path("/sys/module/nvidia/refcnt").write_text("1\n")
        os.makedirs("/proc/driver/nvidia")
        Path("/proc/driver/nvidia/version").write_text(
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  %s  Release Build\n" % state["loaded"]
        )
    for device in glob.glob("/dev/nvidia[0-9]*"):
        os.unlink(device)
    for number, _device in enumerate(state["gpus"] if state["loaded"] else []):
        Path("/dev/nvidia%d" % number).touch()
    os.makedirs("/lib/modules/%s" % kernel(), exist_ok=True)
    Path("/lib/modules/%s/modules.dep" % kernel()).touch()
    Path("/boot/vmlinuz-%s" % kernel()).touch()


def accepted(state: dict) -> bool:
    return not state["secure_boot"] or (bool(state["signer"]) and state["serial"] in state["enrolled"])


def modprobe(arguments: list[str]) -> str:
    name = arguments[-1]
    state = load()
    version, _licence = on_disk()
    if not name.startswith("nvidia") or not version or not state["built"]:
        return "modprobe: FATAL: Module %s not found in directory /lib/modules/%s" % (name, kernel())
    if not accepted(state):
        return "modprobe: ERROR: could not insert '%s': Key was rejected by service" % name
    if not state["gpus"]:
        return "modprobe: ERROR: could not insert '%s': No such device" % name
    if not state["loaded"]:
        save({**state, "loaded": version})
        appear()
    return ""


def rmmod(arguments: list[str]) -> str:
    name = arguments[-1]
    state = load()
    if state["in_use"] and name == "nvidia":
        return "rmmod: ERROR: Module nvidia is in use"
    if not os.path.isdir("/sys/module/" + name):
        return "rmmod: ERROR: Module %s is not currently loaded" % name
    shutil.rmtree("/sys/module/" + name)
    if name == "nvidia":
        save({**state, "loaded": None})
        appear()
    return ""


def modinfo(arguments: list[str]) -> str:
    state = load()
    version, licence = on_disk()
    if (
        arguments[0] != "-k"
        or arguments[1] != kernel()
        or arguments[2] != "nvidia"
        or not version
        or not state["built"]
    ):
        return "modinfo: ERROR: Module %s not found." % arguments[-1]
    print("filename:       /lib/modules/%s/updates/dkms/nvidia.ko" % kernel())
    print("version:        %s\nlicense:        %s" % (version, licence))
    if state["signer"]:
        print("sig_id:         PKCS#7\nsigner:         %s\nsig_key:        %s" % (state["signer"], state["serial"]))
    return ""


def dkms(arguments: list[str]) -> str:
    version, _licence = on_disk()
    if arguments == ["status"] and version:
        if load()["built"]:
            print("nvidia/%s, %s, x86_64: installed" % (version, kernel()))
        else:
            print("nvidia/%s: added" % version)
    return ""


def mokutil(arguments: list[str]) -> str:
    state = load()
    if arguments == ["--list-enrolled"]:
        for number, serial in enumerate(state["enrolled"], 1):
            print("[key %d]\n        Serial Number:\n            %s" % (number, serial.lower()))
            print("        Subject: CN=DKMS module signing key")
    if arguments[:1] == ["--test-key"]:
        print("%s is %s enrolled" % (arguments[1], "already" if state["serial"] in state["enrolled"] else "not"))
    return ""


def nvidia_ctk(arguments: list[str]) -> str:
    """The installed toolkit's version is the package's; its specification is of what the stand-in has loaded."""
    spec = Path("/etc/cdi/nvidia.yaml")
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", "nvidia-container-toolkit-base"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    if not shown:
        return "nvidia-ctk: not found"
    devices = sorted(glob.glob("/dev/nvidia[0-9]*"))
    if arguments == ["--version"]:
        print("NVIDIA Container Toolkit CLI version %s" % shown.split("-")[0])
    elif arguments[:2] == ["cdi", "generate"]:
        if not devices:
            return "failed to generate CDI spec: failed to initialize NVML: Driver Not Loaded"
        nodes = "".join("    - path: %s\n" % device for device in devices)
        target = Path(arguments[2].partition("=")[2])
        target.write_text(
            "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    deviceNodes:\n%s"
            "containerEdits:\n  mounts:\n  - hostPath: /usr/lib/libcuda.so.%s\n" % (nodes, load()["loaded"])
        )
    elif arguments[:2] == ["cdi", "list"] and spec.exists():
        print("nvidia.com/gpu=all")
    elif arguments[:2] == ["runtime", "configure"]:
        path = Path("/etc/docker/daemon.json")
        content = json.loads(path.read_text()) if path.exists() else {}
        content.setdefault("runtimes", {})["nvidia"] = {"args": [], "path": "nvidia-container-runtime"}
        content.setdefault("features", {})["cdi"] = True
        text = json.dumps(content, indent=4) + "\n"
        if "--dry-run" in arguments:
            print(text)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return ""


def install() -> None:
    target = Path("/usr/local/sbin/gpu_stand_in.py")
    if Path(__file__).resolve() != target:
        shutil.copyfile(__file__, target)
    target.chmod(0o755)
    for name in NAMES:
        link = Path("/usr/local/sbin") / name
        if not link.is_symlink():
            link.symlink_to(target)
    Path("/etc/systemd/system/gpu-stand-in.service").write_text(UNIT)
    subprocess.run(["systemctl", "enable", "--quiet", "gpu-stand-in.service"], check=True)
    appear()


def boot() -> None:
    state = load()
    version, _licence = on_disk()
    loads = bool(version) and bool(state["gpus"]) and state["built"] and accepted(state)
    save({**state, "loaded": version if loads else None, "in_use": False})
    appear()


def main() -> None:
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name in NAMES:
        wrong = globals()[name.replace("-", "_")](arguments)
        if wrong:
            sys.exit(wrong)
    elif arguments[0] == "install":
        install()
    elif arguments[0] == "boot":
        boot()
    else:
        state = load()
        for change in arguments[1:]:
            key, _sep, value = change.partition("=")
            if key not in STATE:
                sys.exit("no key %s" % key)
            state[key] = json.loads(value)
        save(state)
        appear()


if __name__ == "__main__":
    main()
