# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Ask one GPU through nvidia-ml-py. What it can't answer is null, whatever NVML says about it."""

from __future__ import annotations

import ctypes
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info_record import EMPTY, Record, empty
from ansible_collections.gpufleet.llm.plugins.module_utils._nvml_ask import GONE, Asker, GoneError, as_text, name_of

FABRIC_STATES = {0: "not_supported", 1: "not_started", 2: "in_progress", 3: "completed"}
FABRIC_HEALTH = {1: "healthy", 2: "unhealthy", 3: "limited_capacity"}
# nvmlClocksEventReasons of nvml.h, by bit.
CLOCKS_EVENT_REASONS = (
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
    "board_limit",
    "reliability",
)
# NVML_FI_DEV_*: one call asks for all of them.
FIELDS = {
    "memory": 82,
    "nvlink_links": 91,
    "shutdown_margin": 193,
    "slowdown_margin": 194,
    "memory_max_margin": 195,
    "gpu_max_margin": 196,
    "recovery_action": 230,
}
RECOVERY_ACTIONS = {
    0: "none",
    1: "gpu_reset",
    2: "node_reboot",
    3: "drain_p2p",
    4: "drain_and_reset",
    5: "recover_imex_domain",
    6: "bus_reset",
    7: "system_reboot",
}
MEMBER_OF_VALUE_TYPE = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
MAX_NVLINKS = 36
MIB = 1048576


def read_gpu(nvml: t.Any, index: int, state_of: t.Callable[[int], str]) -> Record:
    """Return one GPU's record; ``error`` and ``state`` say when it couldn't be read to its end."""
    record = empty(index)
    ask = Asker(nvml, record, state_of)
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as exc:
        ask.fail(exc.value, str(exc))
        return record
    try:
        for step in STEPS:
            step(ask, handle, record)
    except GoneError:
        pass  # the record says it, and what was read before stays
    return record


def _identity(ask: Asker, handle: t.Any, record: Record) -> None:
    nvml = ask.nvml
    pci = ask.first(lambda: nvml.nvmlDeviceGetPciInfo(handle))
    if pci is not None:
        domain, _sep, rest = as_text(pci.busId).lower().partition(":")
        record["pci_address"] = "%04x:%s" % (int(domain, 16), rest)
        record["pci_device_id"] = "%04x" % (pci.pciDeviceId >> 16)
        record["pci_subsystem_id"] = "%04x:%04x" % (pci.pciSubSystemId & 0xFFFF, pci.pciSubSystemId >> 16)
    record["uuid"] = ask.text("nvmlDeviceGetUUID", handle)
    record["name"] = ask.text("nvmlDeviceGetName", handle)
    record["serial"] = ask.text("nvmlDeviceGetSerial", handle)
    capability = ask.get("nvmlDeviceGetCudaComputeCapability", handle)
    if capability is not None:
        record["compute_capability"] = "%d.%d" % tuple(capability)
    record["architecture"] = name_of(nvml, "NVML_DEVICE_ARCH_", ask.get("nvmlDeviceGetArchitecture", handle))


def _memory(ask: Asker, handle: t.Any, record: Record) -> None:
    record["memory_mib"] = memory_of(ask, handle)


def memory_of(ask: Asker, handle: t.Any) -> Record:
    """Return a GPU's or a MIG device's memory in MiB; ``reserved`` is null where the library can't tell it apart."""
    nvml = ask.nvml
    memory = ask.first(
        lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2),
        lambda: nvml.nvmlDeviceGetMemoryInfo(handle),
    )
    found: Record = {}
    for key in EMPTY["memory_mib"]:
        value = getattr(memory, key, None)
        found[key] = None if value is None else value // MIB
    return found


def _errors(ask: Asker, handle: t.Any, record: Record) -> None:
    nvml = ask.nvml
    ecc = record["ecc"]
    modes = ask.get("nvmlDeviceGetEccMode", handle)
    if modes is not None:
        ecc["current"], ecc["pending"] = (bool(mode) for mode in modes)
    for kind, error_type in (("corrected", 0), ("uncorrected", 1)):
        for counter, counter_type in (("volatile", 0), ("aggregate", 1)):
            ecc["%s_%s" % (kind, counter)] = ask.get("nvmlDeviceGetTotalEccErrors", handle, error_type, counter_type)
    rows = ask.get("nvmlDeviceGetRemappedRows", handle)
    if rows is not None:
        correctable, uncorrectable, pending, failure = rows
        histogram = ask.first(lambda: nvml.nvmlDeviceGetRowRemapperHistogram(handle))
        record["remapped_rows"] = {
            "correctable": correctable,
            "uncorrectable": uncorrectable,
            "pending": bool(pending),
            "failure": bool(failure),
            "histogram": histogram
            and {key: getattr(histogram, key) for key in ("max", "high", "partial", "low", "none")},
        }
    for key, cause in (("single_bit", 0), ("double_bit", 1)):
        pages = ask.get("nvmlDeviceGetRetiredPages", handle, cause)
        record["retired_pages"][key] = None if pages is None else len(pages)
    record["retired_pages"]["pending"] = ask.switch("nvmlDeviceGetRetiredPagesPendingStatus", handle)


def fields_of(ask: Asker, handle: t.Any) -> t.Dict[str, t.Any]:
    """Return the values of FIELDS that this GPU has, asked for at once; one by one where a driver refuses them all."""
    values = ask.get("nvmlDeviceGetFieldValues", handle, list(FIELDS.values()))
    if values is None:
        single = [ask.get("nvmlDeviceGetFieldValues", handle, [field]) for field in FIELDS.values()]
        values = [None if value is None else value[0] for value in single]
    found = {}
    for name, value in zip(FIELDS, values):
        if value is None:
            continue
        if value.nvmlReturn in GONE:
            ask.fail(value.nvmlReturn, str(ask.nvml.NVMLError(value.nvmlReturn)))
            raise GoneError()
        member = MEMBER_OF_VALUE_TYPE.get(value.valueType)
        if value.nvmlReturn == 0 and member:
            found[name] = getattr(value.value, member)
    return found


def _sensors(ask: Asker, handle: t.Any, record: Record) -> None:
    fields = fields_of(ask, handle)
    action = fields.get("recovery_action")
    if action is not None:
        record["recovery_action"] = RECOVERY_ACTIONS.get(action, "unknown (%d)" % action)
    # The second is deprecated: for drivers that don't have the first.
    reasons = ask.get(("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"), handle)
    record["clocks_event_reasons"] = None if reasons is None else names_of_reasons(reasons)
    celsius = record["temperature_celsius"]
    celsius["gpu"] = ask.get(("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"), handle, 0)
    celsius["margin"] = ask.get("nvmlDeviceGetMarginTemperature", handle)
    for threshold, key in enumerate(("shutdown", "slowdown", "memory_max", "gpu_max")):
        celsius[key] = ask.get("nvmlDeviceGetTemperatureThreshold", handle, threshold)
    for key in ("memory", "shutdown_margin", "slowdown_margin", "memory_max_margin", "gpu_max_margin"):
        celsius[key] = fields.get(key)
    watts = record["power_watts"]
    watts["draw"] = ask.watts("nvmlDeviceGetPowerUsage", handle)
    watts["limit"] = ask.watts("nvmlDeviceGetEnforcedPowerLimit", handle)
    watts["limit_default"] = ask.watts("nvmlDeviceGetPowerManagementDefaultLimit", handle)
    limits = ask.get("nvmlDeviceGetPowerManagementLimitConstraints", handle)
    if limits is not None:
        watts["limit_min"], watts["limit_max"] = (limit / 1000 for limit in limits)
    _nvlink(ask, handle, record, fields.get("nvlink_links"))


def names_of_reasons(bits: int) -> t.List[str]:
    """Return the names of the clocks event reasons that are set; a bit without a name is named by its number."""
    names = [name for place, name in enumerate(CLOCKS_EVENT_REASONS) if bits >> place & 1]
    rest = bits >> len(CLOCKS_EVENT_REASONS)
    return names + [
        "bit_%d" % (place + len(CLOCKS_EVENT_REASONS)) for place in range(rest.bit_length()) if rest >> place & 1
    ]


def _nvlink(ask: Asker, handle: t.Any, record: Record, links: t.Optional[int]) -> None:
    """Links beyond the GPU's own are an invalid argument, so without a count the search ends at the first of those."""
    states: t.List[bool] = []
    for link in range(MAX_NVLINKS if links is None else links):
        state = ask.switch("nvmlDeviceGetNvLinkState", handle, link)
        if state is None:
            break
        states.append(state)
    if states:
        version = ask.get("nvmlDeviceGetNvLinkVersion", handle, 0)
        name = name_of(ask.nvml, "NVML_NVLINK_VERSION_", version)
        record["nvlink"] = {
            "links": len(states),
            "active": sum(states),
            "inactive_links": [link for link, state in enumerate(states) if not state],
            "version": name and name.replace("_", "."),
        }


def _bus(ask: Asker, handle: t.Any, record: Record) -> None:
    for key, function in (
        ("generation", "nvmlDeviceGetCurrPcieLinkGeneration"),
        ("generation_max", "nvmlDeviceGetMaxPcieLinkGeneration"),
        ("generation_gpu_max", "nvmlDeviceGetGpuMaxPcieLinkGeneration"),
        ("width", "nvmlDeviceGetCurrPcieLinkWidth"),
        ("width_max", "nvmlDeviceGetMaxPcieLinkWidth"),
    ):
        record["pcie"][key] = ask.get(function, handle)
    record["persistence"] = ask.switch("nvmlDeviceGetPersistenceMode", handle)


def _fabric(ask: Asker, handle: t.Any, record: Record) -> None:
    nvml = ask.nvml

    def asked(structure: str, function: str) -> t.Callable[[], t.Any]:
        def call() -> t.Any:
            info = getattr(nvml, structure)()
            getattr(nvml, function)(handle, ctypes.byref(info))
            return info

        return call

    info = ask.first(
        asked("c_nvmlGpuFabricInfo_v4_t", "nvmlDeviceGetGpuFabricInfo_v4"),
        asked("c_nvmlGpuFabricInfo_v3_t", "nvmlDeviceGetGpuFabricInfoV"),
        asked("c_nvmlGpuFabricInfo_v2_t", "nvmlDeviceGetGpuFabricInfoV"),
        asked("c_nvmlGpuFabricInfo_t", "nvmlDeviceGetGpuFabricInfo"),
    )
    if info is None:
        return
    # One byte in nvml.h; nvidia-ml-py reads four, of which three are padding.
    state = FABRIC_STATES.get(info.state & 0xFF, "unknown (%d)" % (info.state & 0xFF))
    cliques = getattr(info, "cliques", None)
    clique = info.cliqueId if cliques is None else cliques[0].id if info.numCliques else None
    digits = "".join("%02x" % byte for byte in info.clusterUuid)
    cluster = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    done = state == "completed"
    record["fabric"] = {
        "state": state,
        # nvml.h: it means something only when the probe is completed.
        "status": ("success" if info.status == 0 else str(nvml.NVMLError(info.status))) if done else None,
        "health": FABRIC_HEALTH.get(getattr(info, "healthSummary", 0)),
        "clique_id": clique if done else None,
        "cluster_uuid": cluster if done else None,
    }


def _mig(ask: Asker, handle: t.Any, record: Record) -> None:
    modes = ask.get("nvmlDeviceGetMigMode", handle)
    if modes is None:
        return
    mig = record["mig"]
    mig["current"], mig["pending"] = (bool(mode) for mode in modes)
    mig["devices_max"] = ask.get("nvmlDeviceGetMaxMigDeviceCount", handle)
    mig["devices"] = []
    for place in range((mig["devices_max"] or 0) if mig["current"] else 0):
        device = ask.get("nvmlDeviceGetMigDeviceHandleByIndex", handle, place)
        if device is None:
            continue
        mig["devices"].append(
            {
                "uuid": ask.text("nvmlDeviceGetUUID", device),
                "gpu_instance_id": ask.get("nvmlDeviceGetGpuInstanceId", device),
                "compute_instance_id": ask.get("nvmlDeviceGetComputeInstanceId", device),
                "memory_mib": memory_of(ask, device),
            }
        )


def _processes(ask: Asker, handle: t.Any, record: Record) -> None:
    found: t.Dict[int, Record] = {}
    known = False
    for kind, name in (("compute", "Compute"), ("graphics", "Graphics"), ("mps", "MPSCompute")):
        function = "nvmlDeviceGet%sRunningProcesses" % name
        listed = ask.get((function + "_v3", function + "_v2"), handle)
        known = known or listed is not None
        for process in listed or ():
            memory = process.usedGpuMemory
            entry = found.setdefault(process.pid, {"pid": process.pid, "kind": kind, "name": None, "memory_mib": None})
            if memory is not None:
                entry["memory_mib"] = memory // MIB
    for entry in found.values():
        entry["name"] = ask.text("nvmlSystemGetProcessName", entry["pid"])
    record["processes"] = [found[pid] for pid in sorted(found)] if known else None


STEPS: t.Tuple[t.Callable[[Asker, t.Any, Record], None], ...] = (
    _identity,
    _memory,
    _errors,
    _sensors,
    _bus,
    _fabric,
    _mig,
    _processes,
)
