# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Ask nvidia-smi, where NVML can't be loaded: only for fields that it knows, which differ by driver."""

from __future__ import annotations

import csv
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info_record import Record, empty
from ansible_collections.gpufleet.llm.plugins.module_utils._nvml_gpu import names_of_reasons
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner

FORMAT = "--format=csv,noheader,nounits"
# nvidia-smi's exit statuses (its manual page, "RETURN VALUE"), and what it says where the status is a general one.
STATE_OF_STATUS = {
    4: "no_permission",
    9: "driver_not_loaded",
    12: "library_not_found",
    15: "gpu_lost",
    124: "no_answer",
}
STATE_OF_TEXT = (
    ("Driver/library version mismatch", "version_mismatch"),
    ("couldn't communicate with the NVIDIA driver", "driver_not_loaded"),
    ("couldn't find libnvidia-ml", "library_not_found"),
    ("Insufficient Permissions", "no_permission"),
    ("GPU is lost", "gpu_lost"),
    ("requires reset", "reset_required"),
)
NO_DEVICES = "No devices were found"
INVALID_FIELD = re.compile(r'Field "([^"]+)" is not a valid field to query')
CUDA_VERSION = re.compile(r"CUDA(?: UMD)? Version\s*:\s*(\d+\.\d+)")


def _number(text: str) -> t.Union[int, float]:
    return float(text) if "." in text else int(text, 0)


def _switch(text: str) -> t.Optional[bool]:
    return {"enabled": True, "yes": True, "1": True, "disabled": False, "no": False, "0": False}.get(text.lower())


def _name(text: str) -> str:
    return text.strip().lower().replace(" ", "_")


def _pci_address(text: str) -> str:
    domain, _sep, rest = text.lower().partition(":")
    return "%04x:%s" % (int(domain, 16), rest)


# Where a value goes, the names that nvidia-smi has had for it, newest first, and how its text is read.
FIELDS: t.Tuple[t.Tuple[str, t.Tuple[str, ...], t.Callable[[str], t.Any]], ...] = (
    ("index", ("index",), _number),
    ("uuid", ("uuid",), str),
    ("name", ("name",), str),
    ("serial", ("serial",), str),
    ("pci_address", ("pci.bus_id",), _pci_address),
    ("pci_device_id", ("pci.device_id",), lambda text: "%04x" % (int(text, 16) >> 16)),
    ("pci_subsystem_id", ("pci.sub_device_id",), lambda text: "%s:%s" % (text.lower()[-4:], text.lower()[-8:-4])),
    ("compute_capability", ("compute_cap",), str),
    ("memory_mib.total", ("memory.total",), _number),
    ("memory_mib.free", ("memory.free",), _number),
    ("memory_mib.used", ("memory.used",), _number),
    ("memory_mib.reserved", ("memory.reserved",), _number),
    ("ecc.current", ("ecc.mode.current",), _switch),
    ("ecc.pending", ("ecc.mode.pending",), _switch),
    ("ecc.corrected_volatile", ("ecc.errors.corrected.volatile.total",), _number),
    ("ecc.uncorrected_volatile", ("ecc.errors.uncorrected.volatile.total",), _number),
    ("ecc.corrected_aggregate", ("ecc.errors.corrected.aggregate.total",), _number),
    ("ecc.uncorrected_aggregate", ("ecc.errors.uncorrected.aggregate.total",), _number),
    ("remapped_rows.correctable", ("remapped_rows.correctable",), _number),
    ("remapped_rows.uncorrectable", ("remapped_rows.uncorrectable",), _number),
    ("remapped_rows.pending", ("remapped_rows.pending",), _switch),
    ("remapped_rows.failure", ("remapped_rows.failure",), _switch),
    ("retired_pages.single_bit", ("retired_pages.single_bit_ecc.count", "retired_pages.sbe"), _number),
    ("retired_pages.double_bit", ("retired_pages.double_bit.count", "retired_pages.dbe"), _number),
    ("retired_pages.pending", ("retired_pages.pending",), _switch),
    ("recovery_action", ("gpu_recovery_action",), _name),
    (
        "clocks_event_reasons",
        ("clocks_event_reasons.active", "clocks_throttle_reasons.active"),
        lambda text: names_of_reasons(int(text, 16)),
    ),
    ("temperature_celsius.gpu", ("temperature.gpu",), _number),
    ("temperature_celsius.memory", ("temperature.memory",), _number),
    ("temperature_celsius.margin", ("temperature.gpu.tlimit",), _number),
    ("power_watts.draw", ("power.draw",), float),
    ("power_watts.limit", ("enforced.power.limit",), float),
    ("power_watts.limit_default", ("power.default_limit",), float),
    ("power_watts.limit_min", ("power.min_limit",), float),
    ("power_watts.limit_max", ("power.max_limit",), float),
    ("pcie.generation", ("pcie.link.gen.gpucurrent", "pcie.link.gen.current"), _number),
    ("pcie.generation_max", ("pcie.link.gen.max",), _number),
    ("pcie.generation_gpu_max", ("pcie.link.gen.gpumax",), _number),
    ("pcie.width", ("pcie.link.width.current",), _number),
    ("pcie.width_max", ("pcie.link.width.max",), _number),
    ("fabric.state", ("fabric.state",), _name),
    ("fabric.status", ("fabric.status",), _name),
    ("mig.current", ("mig.mode.current",), _switch),
    ("mig.pending", ("mig.mode.pending",), _switch),
    ("persistence", ("persistence_mode",), _switch),
    ("driver_version", ("driver_version",), str),
)


def read(runner: Runner) -> t.Optional[Record]:
    """Return ``{driver, gpus}`` by nvidia-smi, None where there is none."""
    status, out, _err = runner.run(["nvidia-smi", "--help-query-gpu"])
    if status == 127:
        return None
    driver: Record = {"state": "ok", "message": "", "source": "nvidia-smi", "nvml_version": None, "version": None}
    driver.update(cuda_version=None, cuda_version_plain=None)
    status, text, rows = query(runner, set(re.findall(r'"([\w.]+)"', out)) if status == 0 else set())
    gpus = [gpu_of(row, place) for place, row in enumerate(rows)]
    for gpu in gpus:
        driver["version"] = gpu.pop("driver_version", None) or driver["version"]
    if not gpus and NO_DEVICES not in text:
        driver["state"] = state_of(status, text)
        driver["message"] = "nvidia-smi: %s" % (" ".join(text.split()) or "exit status %d" % status)
        driver["source"] = "none" if driver["state"] == "library_not_found" else "nvidia-smi"
    else:
        read_processes(runner, gpus)
        match = CUDA_VERSION.search(runner.run(["nvidia-smi"])[1])
        driver["cuda_version"] = match.group(1) if match else None
    return {"driver": driver, "gpus": gpus}


def query(runner: Runner, known: t.Set[str]) -> t.Tuple[int, str, t.List[t.Dict[str, str]]]:
    """Ask for every field that is known; one that is refused all the same is left out. Return status, text, rows."""
    refused: t.Set[str] = set()
    while True:
        chosen = {}
        for path, names, _reading in FIELDS:
            usable = [name for name in names if name not in refused and (not known or name in known)]
            if usable:
                chosen[path] = usable[0]
        status, out, err = runner.run(["nvidia-smi", "--query-gpu=" + ",".join(chosen.values()), FORMAT])
        unknown = INVALID_FIELD.findall(out + err)
        if not unknown or refused.issuperset(unknown):
            break
        refused.update(unknown)
    lines = [line for line in csv.reader(out.splitlines(), skipinitialspace=True) if len(line) == len(chosen)]
    return status, out + err, [dict(zip(chosen, line)) for line in lines]


def state_of(status: int, text: str) -> str:
    """Return driver.state's value for what nvidia-smi says; ok for a status of 0."""
    for words, state in STATE_OF_TEXT:
        if words in text:
            return state
    return STATE_OF_STATUS.get(status, "unknown_error")


def gpu_of(row: t.Mapping[str, str], place: int) -> Record:
    """Return a GPU's record of nvidia-smi's texts; ``[N/A]`` and its like are null."""
    gpu = empty(place)
    for path, _names, reading in FIELDS:
        text = row.get(path, "").strip()
        if text.startswith("[") or text in ("", "N/A"):
            if gpu["error"] is None and state_of(0, text) in ("gpu_lost", "reset_required"):
                gpu["state"], gpu["error"] = state_of(0, text), text.strip("[]")
            continue
        try:
            value = reading(text)
        except ValueError:
            continue  # a form that no driver has shown yet: unknown
        group, _sep, key = path.partition(".")
        if key:
            gpu[group][key] = value
        else:
            gpu[group] = value
    return gpu


def read_processes(runner: Runner, gpus: t.Sequence[Record]) -> None:
    """Put the compute processes in; null stays where nvidia-smi can't tell."""
    status, out, _err = runner.run(["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", FORMAT])
    if status != 0:
        return
    by_uuid: t.Dict[str, t.List[Record]] = {gpu["uuid"]: [] for gpu in gpus}
    for line in csv.reader(out.splitlines(), skipinitialspace=True):
        if len(line) == 4 and line[0] in by_uuid and line[1].isdigit():
            name, memory = (None if text.startswith("[") else text for text in line[2:])
            by_uuid[line[0]].append(
                {
                    "pid": int(line[1]),
                    "kind": "compute",
                    "name": name,
                    "memory_mib": int(memory) if memory and memory.isdigit() else None,
                }
            )
    for gpu in gpus:
        gpu["processes"] = by_uuid[gpu["uuid"]]
