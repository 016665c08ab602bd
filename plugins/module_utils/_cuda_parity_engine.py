# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The links of the chain on the engine's side: from its torch to a product of matrices. Pure rules over a `View`."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_facts as known
from ansible_collections.gpufleet.llm.plugins.module_utils._cuda_parity_driver import judge_cuda
from ansible_collections.gpufleet.llm.plugins.module_utils._cuda_parity_stack import judge_cudnn
from ansible_collections.gpufleet.llm.plugins.module_utils._cuda_parity_view import View
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding
from ansible_collections.gpufleet.llm.plugins.module_utils._host_proc import parse_version as numbers


def rule_engine(view: View) -> t.List[Finding]:
    """The engine's interpreter imports torch and answers in time."""
    engine = view.engine
    expected = "an engine whose interpreter imports torch"
    if not engine:
        if not view.options["engine_required"]:
            return [
                view.say("engine", True, expected=expected, found="no engine on this host yet", severity="info")
            ]  # fmt: skip
        return [view.say("engine", False, expected=expected, found="no %s" % view.options["interpreter"])]
    if engine["state"] != "done":
        found = "%s: %s" % (engine["interpreter"], engine["error"])
        return [view.say("engine", False, expected=expected, found=found)]
    error = engine["torch_error"]
    if error:
        return [view.say("engine", False, expected=expected, found="%s: %s" % (error["type"], error["text"]))]
    found = "Python %s with torch %s" % (engine["python"], view.torch["version"])
    return [view.say("engine", True, expected=expected, found=found)]


def rule_engine_release(view: View) -> t.List[Finding]:
    """The engine is the version that the release pins."""
    name, wanted = view.build["package"], view.build["version"]
    found = view.engine["distributions"].get(name)
    return [
        view.say("engine_release", found == wanted, expected="%s %s" % (name, wanted), found=found or "not installed")
    ]


def rule_torch_release(view: View) -> t.List[Finding]:
    """Torch is built for the release's CUDA."""
    wanted, found = view.release["cuda"]["version"], view.torch["cuda"]
    told = "CUDA %s" % found if found else "torch %s, built without CUDA" % view.torch["version"]
    return [view.say("torch_release", found == wanted, expected="torch for CUDA %s" % wanted, found=told)]


def rule_torch_driver(view: View) -> t.List[Finding]:
    """The driver runs programs of torch's CUDA."""
    return [judge_cuda(view, "torch_driver", view.torch["cuda"], "Torch's CUDA")]


def rule_cudnn_engine(view: View) -> t.List[Finding]:
    """The cuDNN that torch loads is that of the engine's wheels, and the driver is new enough for it."""
    major = view.torch["cuda"].split(".")[0]
    loaded = known.cudnn_of_number(view.torch["cudnn"])
    wheel = view.engine["distributions"].get("nvidia-cudnn-cu%s" % major)
    error = view.torch["error"]
    if error or not loaded:
        expected = "a cuDNN that torch loads"
        if error:
            return [view.say("cudnn_engine", False, expected=expected, found=error["text"])]
        return [view.undecided("cudnn_engine", expected=expected, why="Torch tells no version of cuDNN.")]
    if wheel and numbers(wheel)[:3] != numbers(loaded):
        expected = "cuDNN %s, of the engine's own wheel" % wheel
        return [view.say("cudnn_engine", False, expected=expected, found="cuDNN %s is loaded" % loaded)]
    return [judge_cudnn(view, "cudnn_engine", loaded, major)]


def rule_compute_capability(view: View) -> t.List[Finding]:
    """Torch holds code for every GPU: machine code, or PTX that a driver can compile."""
    built = view.torch["arch_list"]
    expected = "code in torch for every GPU; it has %s" % (" ".join(built) or "none that it tells")
    if not built:
        return [view.undecided("compute_capability", expected=expected, why="Torch tells no list of architectures.")]
    wrong, right, unknown = [], [], []
    for gpu in view.gpus:
        if gpu.compute_capability is None:
            unknown.append(gpu.title)
            continue
        code = known.code_for(built, gpu.compute_capability)
        if code["sass"] or code["ptx"]:
            right.append("%s (%s): %s" % (gpu.title, gpu.compute_capability, " ".join(code["sass"] or code["ptx"])))
        else:
            wrong.append("no code for %s, compute capability %s" % (gpu.title, gpu.compute_capability))
    if unknown and not wrong:
        why = "The compute capability of %s isn't known." % ", ".join(unknown)
        return [view.undecided("compute_capability", expected=expected, why=why)]
    return [view.say("compute_capability", not wrong, expected=expected, found="; ".join(wrong or right))]


def rule_ptx(view: View) -> t.List[Finding]:
    """Where a GPU has nothing but PTX, the driver can compile it: it knows a CUDA at least as new as torch's."""
    built, cuda = view.torch["arch_list"], view.torch["cuda"]
    only = []
    for gpu in view.gpus:
        code = known.code_for(built, gpu.compute_capability) if gpu.compute_capability else {}
        if code.get("ptx") and not code["sass"]:
            only.append("%s: %s" % (gpu.title, " ".join(code["ptx"])))
    if not only:
        return [view.say("ptx", True, expected="no GPU that runs from PTX", found="machine code for every GPU")]
    how, _floor = known.runs_cuda(view.facts, str(view.driver), cuda, view.api)
    found = "driver %s, CUDA %s" % (view.driver, view.api or "unknown")
    detail = "Torch has nothing but PTX for %s." % "; ".join(only)
    expected = "a driver that compiles the PTX of CUDA %s" % cuda
    return [view.say("ptx", how == known.FULL, expected=expected, found=found, detail=detail)]


def rule_engine_compute_capability(view: View) -> t.List[Finding]:
    """Every GPU has the compute capability that the engine asks for."""
    floor = view.build.get("minimum_compute_capability")
    wrong = [
        "%s has %s" % (gpu.title, gpu.compute_capability)
        for gpu in view.gpus
        if floor and gpu.compute_capability and numbers(gpu.compute_capability) < numbers(floor)
    ]
    found = "; ".join(wrong) or ", ".join(sorted({str(gpu.compute_capability) for gpu in view.gpus})) or "no GPU"
    expected = "%s or higher" % floor if floor else "any: the release tells no minimum"
    return [view.say("engine_compute_capability", not wrong, expected=expected, found=found)]


def rule_compute(view: View) -> t.List[Finding]:
    """Every GPU multiplied two matrices, and every element of the product is right.

    Errors of CUDA are told by the link that they name (`_cuda_parity`); here it's about what was computed.
    """
    expected = "the right product from every GPU"
    findings = []
    devices = (view.engine["compute"] or {}).get("devices") or []
    wrong = [
        "GPU %d: %d of %d elements are wrong" % (one["index"], one["result"]["wrong"], one["result"]["elements"])
        for one in devices
        if one["result"] and one["result"]["wrong"]
    ]
    right = [one for one in devices if one["result"] and not one["result"]["wrong"]]
    if wrong or right:
        taken = ["GPU %d: %d MiB of tensors" % (one["index"], one["memory_tensors_mib"] or 0) for one in right]
        found = "; ".join(wrong) or "%d GPUs, %d elements each, all right" % (
            len(right), right[0]["result"]["elements"],
        )  # fmt: skip
        findings.append(view.say("compute", not wrong, expected=expected, found=found, detail=", ".join(taken)))
    skipped = ["GPU %s: %s" % (one["index"], one["reason"]) for one in view.engine["skipped"]]
    if not view.options["compute"]:
        skipped = ["not asked for"]
    if skipped:
        findings.append(
            view.say(
                "compute",
                False,
                expected=expected,
                found="skipped",
                detail="Not computed, so not proved. %s. Once the engine serves, its completion proves it."
                % "; ".join(skipped),
                severity="info",
            )
        )
    return findings
