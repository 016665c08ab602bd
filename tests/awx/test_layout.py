# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree as an AWX project: laid out and run by ansible-runner, on the control node only. Real hosts: run_site.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support import ROOT, load_yaml

pytestmark = pytest.mark.slow

sys.path.insert(0, str(ROOT / "tests" / "awx"))

from run_site import inventory_of, lay_out, run_laid_out  # noqa: E402 - the line above makes it importable

HOST = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
GROUP = load_yaml(ROOT / "inventories/workstation/group_vars/gpufleet/main.yml")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("awx")
    lay_out(place, inventory_of("h1", HOST, GROUP), {"survey_answer": "yes"})
    return place


def test_the_inventory_is_a_program_that_prints_json(place):
    printed = json.loads(subprocess.run([place / "inventory/hosts"], check=True, capture_output=True).stdout)
    assert printed["gpufleet"] == {"hosts": ["h1"], "vars": GROUP}


def test_the_project_is_a_clean_checkout(place):
    assert (place / "project/collections/ansible_collections/gpufleet/llm").is_symlink()
    assert (place / "project/collections/ansible_collections/gpufleet/llm").resolve() == (place / "project").resolve()
    assert (place / "project/collections/requirements.yml").is_file()
    assert not (place / "project/.venv").exists()
    assert not (place / "project/.git").exists()


def test_site_parses_by_full_names(place):
    report = run_laid_out(place, "--syntax-check", playbook="site.yml")
    assert report["rc"] == 0, report["stdout"]


def test_site_reaches_every_host_of_the_group(place):
    """With a tag that no role has, facts are read and inputs checked: plays, inventory and collection are all found."""
    report = run_laid_out(place, "--tags no_role_has_this", playbook="site.yml")
    assert report["rc"] == 0, report["stdout"]
    assert report["status"] == "successful"
    assert report["stats"]["h1"]["ok"] >= 1
    assert report["stats"]["h1"]["changed"] == report["stats"]["h1"]["failures"] == 0
    assert "Deploy the fleet" in report["stdout"]


PROBE = """
- name: Probe
  hosts: gpufleet
  gather_facts: false
  tasks:
    - name: Show
      ansible.builtin.debug:
        msg: "{{ lookup('gpufleet.llm.release', gpufleet_release).engines.vllm.cpu.lock_path }} {{ survey_answer }}"
"""


def test_the_release_comes_from_the_project_and_the_survey_from_the_launch(place):
    (place / "project/probe.yml").write_text(PROBE)
    report = run_laid_out(place, playbook="probe.yml")
    assert report["rc"] == 0, report["stdout"]
    path = "project/collections/ansible_collections/gpufleet/llm/releases/2026.11.0/vllm-cpu-py311.txt yes"
    assert path in " ".join(report["stdout"].split())


def test_a_run_that_fails_says_so(place):
    report = run_laid_out(place, "-e gpufleet_accelerator=cuda --tags nvidia_driver", playbook="site.yml")
    assert report["rc"] == 2
    assert report["status"] == "failed"
    assert report["stats"]["h1"]["failures"] == 1
    assert report["stats"]["h1"]["changed"] == 0
    assert "driver.gpu: found none, expected an NVIDIA GPU" in report["stdout"]
