# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the predicted memory for the KV cache is from the logged one, and whether what was refused is refused."""

from __future__ import annotations

import typing as t

import facts
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan as planning

GIB = facts.GIB
Plan = t.Dict[str, t.Any]


class Estimate(t.NamedTuple):
    """One prediction beside its log."""

    status: str  # scored, unsupported, open
    predicted_gib: float = 0.0
    logged_gib: float = 0.0
    weights_source: str = ""
    detail: str = ""

    @property
    def error_gib(self) -> float:
        return self.predicted_gib - self.logged_gib

    @property
    def error_percent(self) -> float:
        return 100.0 * self.error_gib / self.logged_gib if self.logged_gib else 0.0

    @property
    def within(self) -> bool:
        return abs(self.error_gib) <= max(0.25, 0.02 * abs(self.logged_gib))


def _gib(value: t.Any) -> t.Optional[int]:
    return int(value * GIB) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def logged_weights(case: facts.Case) -> t.Optional[int]:
    """Return the bytes of the weights that the log has."""
    reported = case.record.get("reported") or {}
    loaded, weights = reported.get("model_loading_gib"), reported.get("weights_gib")
    values = [value for value in (loaded, weights) if isinstance(value, (int, float))]
    return _gib(max(values)) if values else None


def calibration(case: facts.Case, version: str) -> t.Dict[str, int]:
    """Return the terms of the log, as a start that was read before would give them."""
    reported = case.record.get("reported") or {}
    found: t.Dict[str, int] = {}
    graphs, peak = reported.get("cudagraph_estimate_gib"), reported.get("torch_peak_increase_gib")
    # The newer ones print the estimate of the graphs within the peak.
    newer = tuple(int(part) for part in version.split(".")[:2]) >= (0, 26)
    if peak is not None and graphs is not None and newer:
        peak = peak - graphs
    non_torch = reported.get("non_torch_gib")
    if non_torch is None and reported.get("consumed_gib") is not None and logged_weights(case) is not None:
        non_torch = reported["consumed_gib"] - (logged_weights(case) or 0) / GIB
    for name, value in (("non_torch_bytes", non_torch), ("graphs_estimate_bytes", graphs)):
        size = _gib(value)
        if size is not None and size >= 0:
            found[name] = size
    return found


def predict(case: facts.Case, calibrated: bool, given_weights: bool) -> t.Tuple[Plan, str]:
    """Return the plan in estimate mode, and where its weights come from.

    Args:
        case: the record.
        calibrated: whether memory that isn't PyTorch's and the graphs' estimate are the log's.
        given_weights: whether the weights are the log's even where config.json determines them.
    """
    assert case.config is not None
    version = case.versions[0]
    engine = {"version": version, "generation": case.generation}
    terms = calibration(case, version) if calibrated else None
    arguments: t.Dict[str, t.Any] = {"mode": "estimate", "calibration": terms}
    if not given_weights:
        plan = planning.plan(case.config, case.gpu, engine, case.want, **arguments)
        if plan["confidence"] != "unsupported":
            return plan, "config.json"
    known = logged_weights(case)
    plan = planning.plan(case.config, case.gpu, engine, case.want, weights_bytes=known, **arguments)
    return plan, "log" if known is not None else ""


def logged_kv(case: facts.Case, plan: Plan) -> t.Optional[float]:
    """Return the GiB that the deciding GPU had: what is logged, or the blocks where a later stage decides."""
    reported = case.record.get("reported") or {}
    blocks = reported.get("num_gpu_blocks")
    if int(case.record.get("pp") or 1) > 1 and blocks:
        return float(blocks) * plan["kv"]["bytes_per_block"] / GIB
    if isinstance(reported.get("available_kv_bytes"), int):
        return reported["available_kv_bytes"] / GIB
    value = reported.get("available_kv_gib")
    return float(value) if isinstance(value, (int, float)) else None


def estimate(case: facts.Case, calibrated: bool = False, given_weights: bool = False) -> Estimate:
    """Return the prediction for one record."""
    if case.config is None:
        return Estimate("unsupported", detail="no geometry of %s" % case.record.get("model"))
    if not case.total_is_stated and facts.total_of(case.record)[0] is None:
        return Estimate("open", detail="the log doesn't say how much memory the GPU has")
    plan, source = predict(case, calibrated, given_weights)
    if plan["confidence"] == "unsupported":
        return Estimate("unsupported", detail="; ".join(plan["errors"]))
    logged = logged_kv(case, plan)
    if logged is None or logged <= 0:
        return Estimate("open", detail="the log has no memory for the cache")
    return Estimate("scored", plan["kv"]["available"] / GIB, logged, source)


def refused(case: facts.Case) -> t.Tuple[str, str]:
    """Return ``refused``, ``accepted`` or ``unsupported`` with the reason, for a start that its engine refused."""
    plan: Plan = {}
    if case.config is not None:
        plan, _source = predict(case, False, False)
        reported = case.record.get("reported") or {}
        memory = _gib(reported.get("available_kv_gib"))
        if plan["confidence"] != "unsupported" and not plan["errors"] and memory and memory > 0:
            # The log says how much there was; whether that is enough is the planner's to say.
            want = dict(case.want, kv_cache_memory_bytes=memory)
            engine = {"version": case.versions[0], "generation": case.generation}
            plan = planning.plan(case.config, case.gpu, engine, want, mode="estimate", weights_bytes=0)
        if plan["confidence"] != "unsupported":
            return ("refused" if plan["errors"] else "accepted"), "; ".join(plan["errors"])[:160]
    else:
        plan = planning.plan({"architectures": []}, case.gpu, {"version": case.versions[0]}, case.want, mode="estimate")
    said = [line for line in plan["errors"] if line.startswith("Free memory")]
    if said:
        return "refused", said[0][:160]
    why = "no geometry of %s" % case.record.get("model") if case.config is None else "; ".join(plan["errors"])
    return "unsupported", why
