# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a reading that ended early, and who is asked when."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_info, _gpu_info_record, _nvml, _nvml_child
from nvml.in_process import Silent

STARTED = {"driver": {"state": "ok", "message": "", "version": "580.105.08"}, "count": 3}
FIRST = {"gpu": _gpu_info_record.empty(0)}


@pytest.mark.parametrize(
    ("parts", "end", "state", "message", "states"),
    [
        ([], "timeout", "no_answer", "no answer in 2 s while NVML started", []),
        ([STARTED], "timeout", "no_answer", "no answer in 2 s while NVML started", ["no_answer"] * 3),
        (
            [STARTED, {"reading": 0}, FIRST, {"reading": 1}],
            "timeout",
            "no_answer",
            "no answer in 2 s while GPU 1 was read",
            ["ok", "no_answer", "no_answer"],
        ),
        (
            [STARTED, {"reading": 0}],
            "died",
            "unknown_error",
            "no answer in 2 s while GPU 0 was read",
            ["unknown_error"] * 3,
        ),
        (
            [{**STARTED, "count": 1}, {"reading": 0}, FIRST],
            "timeout",
            "no_answer",
            "no answer in 2 s while NVML was shut down",
            ["ok"],
        ),
    ],
)
def test_a_reading_that_ended_early(parts, end, state, message, states):
    record = _gpu_info.assemble(_nvml_child.Answer(parts, end, "no answer in 2 s"))
    assert (record["driver"]["state"], record["driver"]["message"]) == (state, message)
    assert [gpu["state"] for gpu in record["gpus"]] == states
    for gpu in record["gpus"]:
        assert set(gpu) == set(_gpu_info_record.EMPTY)


def test_nvidia_smi_is_not_asked_where_nvml_answered_or_hangs(stub):
    for scenario in ("h100x8", "version_mismatch", "no_driver"):
        stub.load(scenario)
        silent = Silent()
        assert _gpu_info.read_gpu_info("", silent, 10)["driver"]["source"] == "nvml"
        assert silent.asked == []
    stub.load({"gpus": [], "hang": {"nvmlInitWithFlags": True}})
    silent = Silent()
    assert _gpu_info.read_gpu_info("", silent, 0.3)["driver"]["state"] == "no_answer"
    assert silent.asked == []


def test_every_state_has_its_remedy():
    states = {*_nvml.STATE_OF_CODE.values(), "no_answer", "unknown_error"}
    assert set(_gpu_info.REMEDIES) == states
    assert _gpu_info.remedy_of("ok", [1]) == ""
    assert "-i 1,2'" in _gpu_info.remedy_of("reset_required", [1, 2])
    assert "-i INDEX'" in _gpu_info.remedy_of("reset_required", [])
    assert _gpu_info.remedy_of("something new", []) == _gpu_info.REMEDIES["unknown_error"]


def test_the_owner_of_a_process_without_a_unit():
    files = {"/proc/7/status": "Uid:\t0\t0\t0\t0\n", "/proc/7/cgroup": "0::/\n"}
    assert _gpu_info.owner_of(7, Silent(files)) == {"user": "root", "unit": None}
