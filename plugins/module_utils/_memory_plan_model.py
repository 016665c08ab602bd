# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Plans a model that lies in a directory: reads its config.json and the headers of its weights, never the weights."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _memory_plan_advice as advising
from ansible_collections.gpufleet.llm.plugins.module_utils import _weight_files, _weight_headers
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import describe
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import ModelError

Record = t.Dict[str, t.Any]


class Read(t.NamedTuple):
    """What a model's directory says."""

    config: t.Dict[str, t.Any]
    tensors: t.Optional[t.List[t.Dict[str, t.Any]]]
    warnings: t.List[str]


def read(directory: str) -> Read:
    """Return a model's configuration and tensors.

    Raises:
        ModelError: there is no config.json, or a header is malformed.
    """
    files = _weight_files.LocalFiles(directory)
    config = _weight_headers.read_config(files)
    if not any(name.endswith((".safetensors", ".safetensors.index.json")) for name in files.names()):
        return Read(config, None, ["There are no safetensors files in %s." % directory])
    weights = _weight_headers.read_weights(files)
    return Read(config, [tensor._asdict() for tensor in weights.tensors], list(weights.warnings))


def plan_model(
    found: Read,
    gpu: t.Mapping[str, t.Any],
    engine: t.Mapping[str, t.Any],
    want: t.Mapping[str, t.Any],
    mode: str = "pin",
    calibration: t.Optional[t.Mapping[str, t.Any]] = None,
    gpus_there: int = 0,
) -> Record:
    """Return the plan of a model that was read, with what could be changed where it doesn't fit.

    Args:
        found: what was read.
        gpu, engine, want, mode, calibration: as :func:`_memory_plan.plan` takes them.
        gpus_there: GPUs that a change may take, where the host has more than the plan does.
    """
    options: t.Dict[str, t.Any] = {"tensors": found.tensors, "mode": mode}
    record = planning.plan(found.config, gpu, engine, want, calibration=calibration, **options)
    room = dict(gpu, count=max(gpus_there, int(gpu.get("count") or 1)))
    record["suggestions"] = advising.suggestions(record, found.config, room, engine, want, **options)
    record["warnings"] = list(record["warnings"]) + found.warnings
    return record


def unreadable(directory: str, exc: ModelError, mode: str, engine: t.Mapping[str, t.Any]) -> Record:
    """Return the plan of a model that can't be read: none, with the reason."""
    record = planning.plan({}, {"total_bytes": 1}, engine, {}, mode=mode)
    record["errors"] = ["%s can't be read: %s" % (directory, "; ".join(describe(one) for one in exc.findings))]
    record["suggestions"] = []
    return record
