# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it, over a record that's read of no host."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.llm.plugins.modules import cuda_parity
from parity_chain import good


@pytest.fixture
def run(monkeypatch, capsys, release):
    """Run the module over a record; return its result."""

    # Where another test has loaded the controller's side, warnings would be displayed and not returned.
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)

    def call(record, **arguments):
        monkeypatch.setattr(cuda_parity.reading, "read_chain", lambda host, read_gpu, options: (read_gpu(), record)[1])
        monkeypatch.setattr(cuda_parity._gpu_info, "read_gpu_info", lambda library_path, runner: {"path": library_path})
        with patch_module_args({"release": release, **arguments}), pytest.raises(SystemExit):
            cuda_parity.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_a_chain_that_holds(run, release):
    result = run(good(release), container_toolkit_wanted=True)
    assert (result["changed"], result["broken"]) == (False, [])
    assert len(result["findings"]) == len(result["summary"])
    assert result["record"]["glibc"]


def test_a_broken_link_fails_with_its_remedy_and_everything_that_was_read(run, release):
    record = good(release)
    record["driver_api"]["init_code"] = 803
    result = run(record)
    assert result["failed"]
    assert result["broken"] == ["driver_library"]
    assert result["msg"].startswith("The chain from driver to engine is refused, 1 reason")
    assert "Remedy: " in result["msg"]
    assert result["record"]["driver_api"]["init_code"] == 803


def test_the_caller_may_decide(run, release):
    record = good(release)
    record["glibc"] = ""
    record["driver_api"]["init_code"] = 803
    result = run(record, fail=False)
    assert "failed" not in result
    assert result["broken"] == ["driver_library"]
    assert any("parity.glibc" in str(said) for said in result["warnings"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"accelerator": "abacus"}, "found no engine vllm for abacus, expected one of cpu, cuda"),
        ({"engine": "none"}, "expected one of the release's engines"),
        ({"matrix_size": 0}, "found 0, expected 1 to 4096"),
        ({"matrix_size": 5000}, "found 5000"),
    ],
)
def test_wrong_arguments_are_refused(run, release, arguments, says):
    assert says in run(good(release), **arguments)["msg"]


def test_a_release_without_facts_is_refused(run, release):
    del release["facts"]
    assert "found no facts" in run({})["msg"]
