# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What may be expected of one GPU, and what a person does where it isn't so."""

from __future__ import annotations

import fnmatch
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info_record import Record

Expect = t.Mapping[str, t.Any]

SLOWDOWNS = ("hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
COOLING = "See to the host's fans, air filters and inlet temperature."
UNREAD = "Read it by hand ('nvidia-smi -q -i %d'), or leave the expectation out: this driver or GPU doesn't tell it."


class Problem(t.NamedTuple):
    """Why one GPU isn't as expected."""

    found: t.Any
    remedy: str
    severity: str = "error"


Judge = t.Callable[[Record, Expect], t.Optional[Problem]]


class Rule(t.NamedTuple):
    """One check of each GPU. ``expected`` returns None where nobody asks for it."""

    check: str
    expected: t.Callable[[Expect], t.Any]
    judge: Judge


def _wanted(key: str, text: str) -> t.Callable[[Expect], t.Any]:
    return lambda expect: text if expect.get(key) else None


def _name(gpu: Record, expect: Expect) -> t.Optional[Problem]:
    if gpu["name"] in expect["names"]:
        return None
    return Problem(gpu["name"], "Correct the inventory's list of models, or exchange the GPU.")


def _memory(gpu: Record, expect: Expect) -> t.Optional[Problem]:
    free = gpu["memory_mib"]["free"]
    if free is None:
        return Problem(None, UNREAD % gpu["index"])
    if free >= expect["memory_free_mib_min"]:
        return None
    holders = ", ".join(_describe(process) for process in gpu["processes"] or ())
    return Problem(
        free,
        "Stop what holds the memory: %s." % holders
        if holders
        else "No process is seen that holds it: look for one in another container ('fuser -v /dev/nvidia*'), and for a "
        "worker that outlived its engine.",
    )


def _ecc(gpu: Record, expect: Expect) -> t.Optional[Problem]:
    wanted = expect["ecc"] == "enabled"
    current = gpu["ecc"]["current"]
    if current is wanted or (current is None and not wanted):
        return None
    if current is None:
        return Problem("not supported", "This GPU has no ECC: leave expect.ecc out for it, or use a GPU that has.")
    return Problem(
        "disabled" if wanted else "enabled",
        "nvidia-smi -i %d --ecc-config=%d, then reboot." % (gpu["index"], 1 if wanted else 0),
    )


def _pending_modes(gpu: Record, _expect: Expect) -> t.Optional[Problem]:
    waiting = [
        "%s %s" % (name.upper(), "on" if gpu[name]["pending"] else "off")
        for name in ("ecc", "mig")
        if gpu[name]["current"] is not None and gpu[name]["pending"] not in (None, gpu[name]["current"])
    ]
    if not waiting:
        return None
    return Problem(
        "%s after the next reset" % ", ".join(waiting),
        "Drain the host and reset the GPU ('nvidia-smi --gpu-reset -i %d') or reboot; to keep the mode of now, set it "
        "again." % gpu["index"],
    )


def _remap(gpu: Record, _expect: Expect) -> t.Optional[Problem]:
    rows = gpu["remapped_rows"]
    if rows["failure"]:
        return Problem(
            "a remapping failed",
            "Take the GPU out of service and have it replaced: its memory has no spare rows left. 'nvidia-smi -q -i %d "
            "-d ROW_REMAPPER' shows the banks." % gpu["index"],
        )
    if rows["pending"]:
        return Problem(
            "a remapping waits for a reset",
            "Drain the host and reset the GPU ('nvidia-smi --gpu-reset -i %d') or reboot: until then it computes "
            "with a row that has failed." % gpu["index"],
        )
    return None


def _retired(gpu: Record, _expect: Expect) -> t.Optional[Problem]:
    if not gpu["retired_pages"]["pending"]:
        return None
    return Problem("pages wait to be retired", "Drain the host and reboot it: until then the failed pages are in use.")


def _recovery(gpu: Record, _expect: Expect) -> t.Optional[Problem]:
    action = gpu["recovery_action"]
    if action in (None, "none"):
        return None
    what = {
        "gpu_reset": "Stop what uses the GPU, then 'nvidia-smi --gpu-reset -i %d'." % gpu["index"],
        "drain_and_reset": "Drain the host, then 'nvidia-smi --gpu-reset -i %d'." % gpu["index"],
        "drain_p2p": "Stop the engines that use this GPU together with others, and start them again.",
        "recover_imex_domain": "Restart the IMEX service (nvidia-imex) on the nodes of the domain.",
    }.get(action, "Drain the host and reboot it.")
    return Problem(action, what + " Look for 'NVRM: Xid' in the kernel log: it says why.")


def _fabric(gpu: Record, _expect: Expect) -> t.Optional[Problem]:
    fabric = gpu["fabric"]
    if fabric["state"] in (None, "not_supported"):
        return None
    healthy = fabric["health"] in (None, "healthy")
    if fabric["state"] == "completed" and fabric["status"] in (None, "success") and healthy:
        return None
    return Problem(
        ", ".join(str(part) for part in (fabric["state"], fabric["status"], fabric["health"]) if part),
        "CUDA doesn't start on this GPU (error 802). See that nvidia-fabricmanager.service runs and is of the driver's "
        "very version; its journal says why a registration failed.",
    )


def _temperature(gpu: Record, expect: Expect) -> t.Optional[Problem]:
    celsius = gpu["temperature_celsius"]
    hot, limit = celsius["gpu"], expect.get("temperature_celsius_max")
    too_hot = limit is not None and hot is not None and hot >= limit
    if expect["temperature_below_slowdown"]:
        if celsius["margin"] is not None:
            too_hot = too_hot or celsius["margin"] <= 0
        elif hot is not None and celsius["slowdown"] is not None:
            too_hot = too_hot or hot >= celsius["slowdown"]
    if too_hot:
        return Problem(
            hot, "See to the host's fans, air filters and inlet temperature; lower the power limit until then."
        )
    if limit is not None and hot is None:
        return Problem(None, UNREAD % gpu["index"], "warning")
    return None


def _expected_temperature(expect: Expect) -> t.Any:
    limits = []
    if expect.get("temperature_celsius_max") is not None:
        limits.append("%d" % expect["temperature_celsius_max"])
    if expect["temperature_below_slowdown"]:
        limits.append("the GPU's own slowdown")
    return "below %s" % " and ".join(limits) if limits else None


def _slowdown(gpu: Record, _expect: Expect) -> t.Optional[Problem]:
    slow = [reason for reason in gpu["clocks_event_reasons"] or () if reason in SLOWDOWNS]
    if not slow:
        return None
    return Problem(
        ", ".join(slow),
        "See to the power supply and its cables." if "hw_power_brake_slowdown" in slow else COOLING,
        "warning",  # it is so at this moment; it may be over in the next
    )


def _persistence(gpu: Record, expect: Expect) -> t.Optional[Problem]:
    if gpu["persistence"] is expect["persistence"]:
        return None
    if gpu["persistence"] is None:
        return Problem(None, UNREAD % gpu["index"], "warning")
    return Problem(
        "off" if expect["persistence"] else "on",
        "systemctl enable --now nvidia-persistenced.service."
        if expect["persistence"]
        else "systemctl disable --now nvidia-persistenced.service.",
    )


def _mig(gpu: Record, expect: Expect) -> t.Optional[Problem]:
    wanted = expect["mig"] == "enabled"
    current = gpu["mig"]["current"]
    if current is wanted or (current is None and not wanted):
        return None
    if current is None:
        return Problem("not supported", "This GPU has no MIG: correct the inventory.")
    return Problem(
        "disabled" if wanted else "enabled",
        "Drain the host, then 'nvidia-smi -i %d -mig %d', and reset the GPU." % (gpu["index"], 1 if wanted else 0),
    )


def _width(gpu: Record, _expect: Expect) -> t.Optional[Problem]:
    width, most = gpu["pcie"]["width"], gpu["pcie"]["width_max"]
    if width is None or most is None:
        return Problem(None, UNREAD % gpu["index"], "warning")
    if width >= most:
        return None
    return Problem(
        "x%d of x%d" % (width, most),
        "Reseat the GPU and its riser, look at the slot's own width and bifurcation in the firmware's settings.",
    )


def _nvlink(gpu: Record, _expect: Expect) -> t.Optional[Problem]:
    down = gpu["nvlink"]["inactive_links"]
    if not down or gpu["mig"]["current"]:
        return None
    return Problem(
        "inactive: %s" % ", ".join(map(str, down)),
        "Look at 'nvidia-smi nvlink -s -i %d' and the fabric manager's journal; a link that stays down needs a look at "
        "the bridge or the board." % gpu["index"],
    )


def is_foreign(process: Record, expect: Expect) -> bool:
    """Tell whether a process is nobody's that may use the GPUs."""
    if process["pid"] in (expect.get("allowed_pids") or ()) or process["user"] in (expect.get("allowed_users") or ()):
        return False
    return not any(fnmatch.fnmatchcase(process["unit"] or "", unit) for unit in expect.get("allowed_units") or ())


def _describe(process: Record) -> str:
    owner = " of ".join(text for text in (process["unit"], process["user"]) if text)
    memory = "" if process["memory_mib"] is None else ", %d MiB" % process["memory_mib"]
    return "%s (pid %d, %s%s)" % (process["name"] or "a process", process["pid"], owner or "not of this host", memory)


def _processes(gpu: Record, expect: Expect) -> t.Optional[Problem]:
    if gpu["processes"] is None:
        return Problem(None, UNREAD % gpu["index"], "warning")
    foreign = [_describe(process) for process in gpu["processes"] if is_foreign(process, expect)]
    if not foreign:
        return None
    return Problem(
        "; ".join(foreign),
        "Stop them, or allow them by expect.allowed_units or expect.allowed_users if they belong here.",
    )


RULES = (
    Rule("gpu.name", lambda expect: expect.get("names") or None, _name),
    Rule("gpu.recovery_action", _wanted("recovery_action_none", "none"), _recovery),
    Rule("gpu.remapped_rows", _wanted("no_pending_remap", "none pending, none failed"), _remap),
    Rule("gpu.retired_pages", _wanted("no_retired_pages_pending", "none pending"), _retired),
    Rule("gpu.ecc", lambda expect: expect.get("ecc"), _ecc),
    Rule("gpu.mig", lambda expect: expect.get("mig"), _mig),
    Rule("gpu.pending_modes", _wanted("no_pending_modes", "none"), _pending_modes),
    Rule("gpu.fabric", _wanted("fabric_completed", "completed, success"), _fabric),
    Rule("gpu.nvlink", _wanted("nvlink_active", "every link active"), _nvlink),
    Rule("gpu.pcie_width", _wanted("pcie_width_full", "full"), _width),
    Rule("gpu.temperature_celsius", _expected_temperature, _temperature),
    Rule("gpu.slowdown", _wanted("no_slowdown", "none"), _slowdown),
    Rule(
        "gpu.persistence",
        lambda expect: None if expect.get("persistence") is None else ("off", "on")[expect["persistence"]],
        _persistence,
    ),
    Rule("gpu.memory_free_mib", lambda expect: expect.get("memory_free_mib_min"), _memory),
    Rule("gpu.processes", _wanted("no_foreign_processes", "only those allowed"), _processes),
)
