# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Decide which links of the chain from driver package to torch hold, and which one an error of CUDA's names.

`decide` is pure: a record of `_cuda_parity_read`, a release with its facts, and options in, findings out, one or more
for each link, named ``parity.<link>``.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_driver as driver
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_engine as engine
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_facts as known
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_stack as stack
from ansible_collections.gpufleet.llm.plugins.module_utils._cuda_parity_view import LINKS, PREFIX, Record, View
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, refusals

Rule = t.Callable[[View], t.List[Finding]]

#: Rules that need a driver that runs; without one they say nothing, and parity.driver says that.
NEED_DRIVER: t.Tuple[Rule, ...] = (
    driver.rule_package_library,
    driver.rule_driver_library,
    driver.rule_module_disk,
    driver.rule_module_next_boot,
    driver.rule_module_gpu,
    driver.rule_driver_release,
    driver.rule_driver_cuda,
    driver.rule_forward_compatibility,
    stack.rule_cudnn_host,
    stack.rule_fabric_manager,
    stack.rule_fabric,
    stack.rule_cdi,
)
ALWAYS: t.Tuple[Rule, ...] = (stack.rule_cuda_toolkit, stack.rule_container_toolkit, stack.rule_glibc)
#: Rules that need a torch that could be imported; the second tuple's need one with CUDA too.
NEED_TORCH: t.Tuple[Rule, ...] = (engine.rule_engine_release, engine.rule_torch_release)
NEED_CUDA_TORCH: t.Tuple[Rule, ...] = (engine.rule_compute_capability, engine.rule_engine_compute_capability)
NEED_CUDA_TORCH_AND_DRIVER: t.Tuple[Rule, ...] = (
    engine.rule_torch_driver,
    engine.rule_cudnn_engine,
    engine.rule_ptx,
    engine.rule_compute,
)


class Observed(t.NamedTuple):
    """An error that CUDA told somewhere.

    Attributes:
        code: its number, None where it's none that we know.
        text: what was said.
        where: where.
        on_host: whether it was told on the host's side, and not in the engine's process alone.
    """

    code: t.Optional[int]
    text: str
    where: str
    on_host: bool


def observe(record: Record) -> t.List[Observed]:
    """Return every error of CUDA's in a record, the first of each code by where it was seen."""
    seen: t.List[Observed] = []
    if record["driver_api"]["init_code"]:
        seen.append(Observed(record["driver_api"]["init_code"], "", "cuInit on the host", True))
    probe = record["engine"] or {}
    inside = probe.get("driver") or {}
    if inside.get("init_code"):
        seen.append(Observed(inside["init_code"], "", "cuInit in the engine's process", False))
    computed = probe.get("compute") or {}
    told = [computed.get("error")] + [one["error"] for one in computed.get("devices") or []]
    for error in told:
        if error:
            code = error["code"] if error["code"] else known.code_of_text(error["text"])
            seen.append(Observed(code, error["text"], error["where"], False))
    return seen


def link_of(view: View, error: Observed, others: t.Sequence[Observed]) -> str:
    """Return the link that an error names.

    Two versions that don't go together are the forward compatibility's where the engine loads such a library and the
    host's own libraries were content.
    """
    link = known.error_fact(view.facts, error.code).get("link") or "compute"
    on_host = any(other.on_host and other.code == error.code for other in others)
    if link == "driver_library" and view.compat_loaded is not None and not on_host:
        link = "forward_compatibility"
    return str(link) if link in LINKS else "compute"


def describe_error(view: View, error: Observed) -> str:
    """Return an error in words: number, name, where, and what it means."""
    fact = known.error_fact(view.facts, error.code)
    number = "CUDA error %d" % error.code if error.code is not None else "CUDA error"
    name = " (%s)" % fact["name"] if fact else ""
    meaning = ": %s" % fact["meaning"] if fact else ""
    text = ": %s" % error.text if error.text and not fact else ""
    return "%s%s at %s%s%s" % (number, name, error.where, meaning, text)


def blame(view: View, findings: t.List[Finding], errors: t.Sequence[Observed]) -> t.List[Finding]:
    """Return the findings with every error laid at the link that it names.

    A link that its own rule found broken gets the error as evidence; one that looked right is broken all the same,
    for CUDA says so.
    """
    result = list(findings)
    by_link: t.Dict[str, t.List[str]] = {}
    for error in errors:
        link, words = link_of(view, error, errors), describe_error(view, error)
        if words not in by_link.setdefault(link, []):
            by_link[link].append(words)
    for link, told in by_link.items():
        text = "; ".join(told) + "."
        broken = [f for f in result if f["check"] == PREFIX + link and not f["ok"] and f["severity"] == "error"]
        if broken:
            place = result.index(broken[0])
            result[place] = dict(broken[0], detail=("%s %s" % (broken[0]["detail"], text)).strip())
            continue
        same = [f for f in result if f["check"] == PREFIX + link and f["severity"] != "info"]
        agree = "The versions that were compared agree" if same and same[0]["ok"] else "What was seen beside it"
        looked = "%s: %s." % (agree, same[0]["found"]) if same else ""
        result = [f for f in result if f not in same]
        expected = same[0]["expected"] if same else "no error of CUDA's"
        result.append(view.say(link, False, expected=expected, found=text.rstrip("."), detail=looked))
    return result


def decide(record: Record, release: Record, options: Record) -> t.List[Finding]:
    """Return the findings of every link, in the order of the chain.

    Args:
        record: what `_cuda_parity_read.read_chain` returns.
        release: a release with ``facts`` in it.
        options: ``{engine, accelerator, interpreter, engine_required, expect_gpus, compute, cuda_toolkit_wanted,
            cudnn_wanted, container_toolkit_wanted}``.
    """
    view = View(record, release, options)
    findings = driver.rule_gpu(view)
    if driver.has_nothing(view):
        return findings
    findings += driver.rule_driver(view)
    rules: t.List[Rule] = list(ALWAYS)
    if view.driver is not None:
        rules += NEED_DRIVER
    findings += engine.rule_engine(view)
    if view.torch:
        rules += NEED_TORCH
        if view.torch["cuda"]:
            rules += NEED_CUDA_TORCH + (NEED_CUDA_TORCH_AND_DRIVER if view.driver is not None else ())
    for rule in rules:
        findings += rule(view)
    if view.driver is not None:
        findings = blame(view, findings, observe(record))
    order = list(LINKS)
    return sorted(findings, key=lambda f: order.index(f["check"][len(PREFIX) :]))


def broken_links(findings: t.Sequence[Finding]) -> t.List[str]:
    """Return the links that are broken, in the order of the chain, each once."""
    return list(dict.fromkeys(f["check"][len(PREFIX) :] for f in refusals(findings)))


def summary(findings: t.Sequence[Finding]) -> t.List[str]:
    """Return the table of the links as lines for a person."""
    marks = {"error": "BROKEN", "warning": "warning", "info": "note"}
    lines = []
    for f in findings:
        mark = "holds" if f["ok"] else marks[f["severity"]]
        lines.append("%-26s %-8s %s" % (f["check"][len(PREFIX) :], mark, f["found"]))
    return lines
