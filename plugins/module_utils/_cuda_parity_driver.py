# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The links of the chain on the host's side: from the package to the CUDA driver API. Pure rules over a `View`."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_facts as known
from ansible_collections.gpufleet.llm.plugins.module_utils._cuda_parity_view import View
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding

# What a state of NVML's (`_gpu_info`) says about a link; "ok" says nothing, and any other names the driver.
NVML_LINKS = {"version_mismatch": "driver_library", "gpu_lost": "gpu", "reset_required": "gpu"}


def nvml_link(view: View) -> str:
    """Return the link that NVML's state names, empty where it's content."""
    state = str(view.nvml.get("state"))
    return "" if state == "ok" else NVML_LINKS.get(state, "driver")


def _joined(names: t.Iterable[str]) -> str:
    return ", ".join(names)


def has_nothing(view: View) -> bool:
    """Tell whether this is a host without any NVIDIA GPU and without a driver for one."""
    return not view.gpus and view.driver is None


def rule_gpu(view: View) -> t.List[Finding]:
    """Every GPU on the PCI bus is seen by the driver."""
    buses, seen = len(view.record["pci"]["gpus"]), len(view.record["gpu"].get("gpus") or [])
    if not view.gpus:
        wanted = view.options["expect_gpus"]
        return [
            view.say(
                "gpu",
                not wanted,
                expected="a GPU of NVIDIA's" if wanted else "a GPU of NVIDIA's, or none",
                found="none on the PCI bus, and %s" % ("no driver" if view.driver is None else "none by NVML"),
                detail="A host without GPU: nothing else was looked at." if view.driver is None else "",
                severity="error" if wanted else "info",
            )
        ]
    state = view.nvml.get("state")
    lost = [one for one in view.record["gpu"].get("gpus") or [] if one.get("error")]
    ok = nvml_link(view) != "gpu" and not lost and (state != "ok" or seen >= buses)
    found = "%d on the PCI bus, %s by NVML" % (buses, seen if state == "ok" else "unknown")
    detail = str(view.nvml.get("message") or "") if nvml_link(view) == "gpu" and not lost else ""
    detail = " ".join([detail] + ["GPU %s: %s." % (one.get("index"), one["error"]) for one in lost]).strip()
    return [view.say("gpu", ok, expected="every GPU of the PCI bus by NVML, none lost", found=found, detail=detail)]


def rule_driver(view: View) -> t.List[Finding]:
    """A driver is there, its module is in memory, and it answers."""
    state = str(view.nvml.get("state"))
    api = view.record["driver_api"]
    loaded = view.record["module"]["loaded"] or state == "ok"
    ok = loaded and nvml_link(view) != "driver" and api["state"] == "done"
    found = "driver %s" % view.driver if view.driver else "no driver in memory"
    if not view.record["module"]["loaded"] and not view.library:
        found += ", none installed"
    elif state != "ok":
        found += ", NVML says %s" % state
    said = [str(view.nvml.get("message") or "")] if not ok else []
    if api["state"] != "done":
        said.append("libcuda: %s." % api["error"])
    if not ok and view.driver is None:
        said.append("Links that need a driver weren't looked at.")
    return [
        view.say("driver", ok, expected="a driver in memory that answers", found=found, detail=" ".join(said).strip())
    ]


def rule_package_library(view: View) -> t.List[Finding]:
    """The libraries on disk are those of the installed packages."""
    wrong, seen, loose = [], [], []
    for soname, one in view.record["libraries"].items():
        if not one:
            continue
        package = one["package"]
        if package is None:
            loose.append("%s (%s)" % (soname, one["path"]))
        elif one["version"] and known.upstream(package["version"]) != one["version"]:
            wrong.append("%s is %s in %s %s" % (soname, one["version"], package["name"], package["version"]))
        else:
            seen.append("%s %s" % (package["name"], package["version"]))
    expected = "the driver's libraries from packages of their version"
    if not (wrong or seen or loose):
        return [view.say("package_library", False, expected=expected, found="no library of the driver")]
    if wrong or not loose:
        return [view.say("package_library", not wrong, expected=expected, found=_joined(wrong or sorted(set(seen))))]
    detail = "No package owns them: they came from a .run file, nothing pins or holds them."
    return [
        view.say("package_library", False, expected=expected, found=_joined(loose), detail=detail, severity="warning")
    ]


def rule_driver_library(view: View) -> t.List[Finding]:
    """Libraries in user space and the module in memory are of one version."""
    versions = {name: one["version"] for name, one in view.record["libraries"].items() if one and one["version"]}
    other = ["%s is %s" % (name, version) for name, version in versions.items() if version != view.driver]
    expected = "libraries of the module in memory, %s" % view.driver
    if nvml_link(view) == "driver_library":
        found = "NVML says version_mismatch" + "".join("; " + one for one in other)
        return [
            view.say("driver_library", False, expected=expected, found=found, detail=view.nvml.get("message") or "")
        ]
    if not versions:
        return [view.undecided("driver_library", expected=expected, why="No library of the driver was found.")]
    found = _joined(other) or "%s at %s" % (_joined(sorted(versions)), view.driver)
    return [view.say("driver_library", not other, expected=expected, found=found)]


def rule_module_disk(view: View) -> t.List[Finding]:
    """The module on disk for the running kernel is the one in memory."""
    kernel = view.record["kernel"]["running"]
    module = view.record["module"]["on_disk"].get(kernel)
    expected = "a module of version %s for kernel %s" % (view.driver, kernel)
    if module is None:
        return [
            view.say(
                "module_disk",
                False,
                expected=expected,
                found="none",
                detail="What is in memory can't be loaded again; in a container the modules are the outer host's.",
                severity="warning",
            )
        ]
    return [view.say("module_disk", module["version"] == view.driver, expected=expected, found=module["version"])]


def rule_module_next_boot(view: View) -> t.List[Finding]:
    """The kernel that boots next has the module of the installed libraries."""
    kernel, source = view.record["kernel"]["next_boot"], view.record["kernel"]["next_boot_source"]
    module = view.record["module"]["on_disk"].get(kernel)
    version = view.library or view.driver
    expected = "a module of version %s for kernel %s, which boots next (by %s)" % (version, kernel, source)
    if source == "running" and module is None:
        detail = "There's no kernel in /boot: a container, or a host that boots from elsewhere. Nothing to decide."
        return [view.say("module_next_boot", True, expected=expected, found="none", detail=detail, severity="info")]
    ok = module is not None and module["version"] == version
    return [view.say("module_next_boot", ok, expected=expected, found=module["version"] if module else "none")]


def rule_module_gpu(view: View) -> t.List[Finding]:
    """The module's flavour and branch are made for every GPU."""
    flavour = view.record["module"]["flavour"]
    branch = known.branch_of(str(view.driver))
    wrong, unknown = [], []
    for gpu in view.gpus:
        _name, facts = known.architecture_of(view.facts, gpu.compute_capability)
        if not facts:
            unknown.append(gpu.title)
            continue
        drives = facts.get("%s_module" % flavour, True) and not (flavour == "proprietary" and gpu.fact.get("open_only"))
        if not drives:
            wrong.append("%s isn't driven by the %s module" % (gpu.title, flavour))
        if facts.get("first_driver") and not known.at_least(branch, facts["first_driver"]):
            wrong.append("%s needs branch %s or newer" % (gpu.title, facts["first_driver"]))
        if facts.get("last_driver") and not known.at_least(facts["last_driver"], branch):
            wrong.append("%s has no support after branch %s" % (gpu.title, facts["last_driver"]))
    detail = "The facts don't know the architecture of %s." % _joined(unknown) if unknown else ""
    found = _joined(wrong) or "the %s module of branch %s" % (flavour or "(flavour unknown)", branch)
    return [view.say("module_gpu", not wrong, expected="a module that drives every GPU", found=found, detail=detail)]


def rule_driver_release(view: View) -> t.List[Finding]:
    """The driver is the release's."""
    pinned = view.release.get("driver") or {}
    version, branch = pinned.get("version"), pinned.get("branch")
    ok = view.driver == version if version else known.branch_of(str(view.driver)) == branch
    expected = version or "branch %s" % branch
    return [view.say("driver_release", ok, expected=expected, found=view.driver)]


def rule_driver_cuda(view: View) -> t.List[Finding]:
    """The driver runs programs of the release's CUDA."""
    cuda = view.release["cuda"]["version"]
    return [judge_cuda(view, "driver_cuda", cuda, "The release's CUDA")]


def judge_cuda(view: View, link: str, cuda: str, what: str) -> Finding:
    """Return the finding of a link whether the driver runs programs of a CUDA version."""
    how, floor = known.runs_cuda(view.facts, str(view.driver), cuda, view.api)
    found = "driver %s" % view.driver + (", which says CUDA %s" % view.api if view.api else "")
    expected = "a driver for CUDA %s: %s or newer" % (cuda, floor)
    if how == known.UNKNOWN:
        return view.undecided(link, expected="a driver for CUDA %s" % cuda, why="The facts don't know CUDA %s." % cuda)
    if how == known.TOO_OLD and view.compat_loaded:
        detail = "%s comes from a forward compatibility package, which parity.forward_compatibility judges." % what
        return view.say(link, True, expected=expected, found=found, detail=detail)
    if how == known.MINOR:
        detail = "%s runs by minor version compatibility: machine code only, the driver can't compile its PTX." % what
        return view.say(link, True, expected=expected, found=found, detail=detail)
    return view.say(link, how == known.FULL, expected=expected, found=found, detail="%s against the driver." % what)


def rule_forward_compatibility(view: View) -> t.List[Finding]:
    """No forward compatibility library, or one that NVIDIA supports on this driver and these GPUs."""
    loaded = view.compat_loaded
    expected = "the driver's own libcuda, or a compat package that this driver and these GPUs are supported for"
    if loaded is None:
        present = [one["path"] for one in view.record["compat"]]
        found = "the driver's own" + (", beside %s, which isn't loaded" % _joined(present) if present else "")
        return [view.say("forward_compatibility", True, expected=expected, found=found)]
    classes = (view.facts.get("forward_compatibility") or {}).get("gpu_classes") or []
    unsupported = [gpu.title for gpu in view.gpus if gpu.fact.get("class") and gpu.fact["class"] not in classes]
    status = known.compat_status(view.facts, loaded["cuda"], str(view.driver))
    reasons = ["%s is no data center GPU" % title for title in unsupported]
    if status not in (known.COMPATIBLE, known.UNKNOWN):
        reasons.append("it's %s on driver %s" % (status.replace("_", " "), view.driver))
    found = "%s%s" % (loaded["path"], ": " + "; ".join(reasons) if reasons else "")
    if not reasons and status == known.UNKNOWN:
        why = "%s is loaded, and NVIDIA's matrix doesn't tell CUDA %s on driver %s." % (
            loaded["path"], loaded["cuda"], view.driver,
        )  # fmt: skip
        return [view.undecided("forward_compatibility", expected=expected, why=why)]
    # CUDA may run with a package that isn't needed; when it doesn't, it says so, and the error is laid here.
    severity = "warning" if status == known.NOT_NEEDED and not unsupported else "error"
    return [view.say("forward_compatibility", not reasons, expected=expected, found=found, severity=severity)]
