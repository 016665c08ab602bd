# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What a host's GPUs are and how they are: by NVML, or by nvidia-smi where that can't be loaded."""

from __future__ import annotations

import functools
import re
import time
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_info_smi, _nvml, _nvml_child
from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info_record import Record, empty
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner

LIBRARY_PATH = "/usr/local/lib/gpufleet/python"
TIMEOUT_SECONDS = 20.0

# Which of the GPUs' states is the host's, the worst first.
WORST_FIRST = ("gpu_lost", "reset_required", "no_answer", "unknown_error", "no_permission")

KERNEL_MODULE = "/proc/driver/nvidia/version"

REMEDIES = {
    "driver_not_loaded": "Install the driver (role gpufleet.llm.nvidia_driver); if it is installed, load it by "
    "'modprobe nvidia' or reboot, and look at 'dkms status' and at 'dmesg' for NVRM if it doesn't load.",
    "library_not_found": "Install the driver (role gpufleet.llm.nvidia_driver); run ldconfig if its libraries are "
    "there.",
    "version_mismatch": "Drain the host, then reload the kernel module when nothing uses it, or reboot. Hold the "
    "driver's packages (module gpufleet.llm.package_hold), so that no unattended upgrade replaces them again.",
    "gpu_lost": "Drain the host, look for 'NVRM: Xid' in the kernel log, then power it off and on. A GPU that is lost "
    "again has to be looked at: its seat, its power, or a replacement.",
    "reset_required": "Stop what uses the GPU, then 'nvidia-smi --gpu-reset -i INDEX', or reboot the host.",
    "no_permission": "Run as root, or give the user the device files /dev/nvidia*; pass the GPUs to a container.",
    "no_answer": "Look for 'NVRM: Xid' and hung tasks in the kernel log, and reboot: a driver that hangs doesn't come "
    "back. If it is only slow, switch persistence mode on, or raise timeout_seconds.",
    "unknown_error": "Look at 'dmesg' for NVRM. In a container that has lost its GPUs after a daemon-reload, start it "
    "again, and pass them by CDI.",
}


def read_gpu_info(library_path: str, runner: Runner, timeout_seconds: float = TIMEOUT_SECONDS) -> Record:
    """Read driver and GPUs; never raises for what a host lacks.

    Args:
        library_path: directory of ``pynvml.py`` (nvidia-ml-py); an installed one is used where it isn't there.
        runner: for nvidia-smi, and for whose the processes are.
        timeout_seconds: how long NVML may take.

    Returns:
        ``{driver, gpus, took_ms}``; the module gpu_info documents it.
    """
    began = time.monotonic()
    answer = _nvml_child.run_in_child(functools.partial(_nvml.produce, library_path), timeout_seconds)
    record = assemble(answer)
    if record["driver"]["state"] == "library_not_found":
        record = _gpu_info_smi.read(runner) or record
    settle(record, runner)
    record["took_ms"] = int((time.monotonic() - began) * 1000)
    return record


def assemble(answer: _nvml_child.Answer) -> Record:
    """Return driver and GPUs of what the reading process sent, and what kept it from sending the rest."""
    driver: Record = {"state": "unknown_error", "message": "", "source": "nvml"}
    for key in ("version", "nvml_version", "cuda_version", "cuda_version_plain"):
        driver[key] = None
    gpus: t.List[Record] = []
    count, reading = 0, None
    for part in answer.parts:
        if "binding" in part:
            driver.update(state="library_not_found", source="none")
            driver["message"] = "nvidia-ml-py isn't there (%s), so NVML wasn't asked" % part["binding"]
        elif "driver" in part:
            driver.update(part["driver"])
            count = part["count"]
            driver["source"] = "none" if driver["state"] == "library_not_found" else "nvml"
        elif "gpu" in part:
            gpus.append(part["gpu"])
        else:
            reading = part["reading"]
    if answer.end != "done":
        state = "no_answer" if answer.end == "timeout" else "unknown_error"
        driver.update(state=state, message="%s while %s" % (answer.detail, _what_was_done(reading, len(gpus))))
        for index in range(len(gpus), count):
            text = answer.detail if index == reading else "not read: %s" % driver["message"]
            gpus.append(dict(empty(index), state=state, error=text))
    return {"driver": driver, "gpus": gpus}


def _what_was_done(reading: t.Optional[int], done: int) -> str:
    """Return in which step a reading stopped: the GPU it was at, and how many it had ended."""
    if reading is None:
        return "NVML started"
    return "GPU %d was read" % reading if done <= reading else "NVML was shut down"


def settle(record: Record, runner: Runner) -> None:
    """Put the host's state, its message and its remedy in, and whose the processes are."""
    driver = record["driver"]
    if driver["state"] == "ok":
        states = {gpu["state"] for gpu in record["gpus"]}
        driver["state"] = next((state for state in WORST_FIRST if state in states), "ok")
        failed = [gpu for gpu in record["gpus"] if gpu["error"]]
        driver["message"] = "; ".join("%s: %s" % (name_gpu(gpu), gpu["error"]) for gpu in failed)
    if driver["version"] is None:
        driver["version"] = loaded_version(runner.read(KERNEL_MODULE) or "")
    if driver["state"] == "version_mismatch":
        driver["message"] = driver["message"].rstrip(".") + ": the loaded kernel module is %s, the library %s" % (
            driver["version"] or "of an unknown version",
            driver["nvml_version"] or "of another version",
        )
    driver["remedy"] = remedy_of(driver["state"], [gpu["index"] for gpu in record["gpus"] if gpu["error"]])
    for gpu in record["gpus"]:
        for process in gpu["processes"] or ():
            process.update(owner_of(process["pid"], runner))
            if process["name"] is None:
                process["name"] = (runner.read("/proc/%d/comm" % process["pid"]) or "").strip() or None


def remedy_of(state: str, indices: t.Sequence[int]) -> str:
    """Return what a person does about a state, for the GPUs of these indices; nothing for ``ok``."""
    if state == "ok":
        return ""
    return REMEDIES.get(state, REMEDIES["unknown_error"]).replace("INDEX", ",".join(map(str, indices)) or "INDEX")


def name_gpu(gpu: Record) -> str:
    """Return how a GPU is called in a sentence: ``GPU 3 (0000:5e:00.0)``."""
    return "GPU %d%s" % (gpu["index"], " (%s)" % gpu["pci_address"] if gpu["pci_address"] else "")


def loaded_version(text: str) -> t.Optional[str]:
    """Return the version of the loaded kernel module by the driver's own /proc file, None where there is none."""
    match = re.search(r"^NVRM version:.*?Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", text, re.MULTILINE)
    return match.group(1) if match else None


def owner_of(pid: int, runner: Runner) -> Record:
    """Return ``{user, unit}`` of a process, null where it can't be seen: in another container, or ended."""
    import pwd

    from ansible_collections.gpufleet.llm.plugins.module_utils import _host_proc

    match = re.search(r"^Uid:\s+(\d+)", runner.read("/proc/%d/status" % pid) or "", re.MULTILINE)
    if match is None:
        return {"user": None, "unit": None}
    try:
        user = pwd.getpwuid(int(match.group(1))).pw_name
    except KeyError:
        user = match.group(1)
    cgroup = runner.read("/proc/%d/cgroup" % pid) or ""
    scopes = re.findall(r"/([^/\n]+\.scope)(?=[/\n]|$)", cgroup)
    return {"user": user, "unit": _host_proc.unit_of_cgroup(cgroup) or (scopes[-1] if scopes else None)}
