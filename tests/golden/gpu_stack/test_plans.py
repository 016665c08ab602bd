# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU stack that a host of each platform gets from each release, byte for byte: the plan, and apt's preferences.

To take over a change on purpose: ``GPUFLEET_GOLDEN_WRITE=1 pytest tests/golden/gpu_stack``, and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _release as releasing

EXPECTED = Path(__file__).parent / "expected"
RELEASES = releasing.COLLECTION_RELEASES
KERNELS = {
    "debian12": "6.1.0-50-amd64",
    "debian13": "6.12.94+deb13-amd64",
    "ubuntu2204": "6.5.0-45-generic",
    "ubuntu2404": "6.17.0-19-generic",
    "rhel9": "5.14.0-687.15.1.el9_8.x86_64",
}
EIGHT_H100 = [{"pci_address": "0000:%02x:00.0" % (16 + slot), "pci_device_id": "2330"} for slot in range(8)]


class Indented(yaml.SafeDumper):
    """Indents the items of a list, as the tree's YAML does."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)


def plan(release_id, platform):
    """Return the plan of an HGX H100 host, without the findings, whose wording isn't what this is about."""
    host = {"platform": platform, "architecture": "x86_64", "kernel": KERNELS[platform], "gpus": EIGHT_H100}
    result = planning.gpu_stack_plan(releasing.load_cached(RELEASES, release_id), host)
    assert result["refusal"] == ""
    del result["findings"]
    return result


def compare(name, text):
    path = EXPECTED / name
    if os.environ.get("GPUFLEET_GOLDEN_WRITE"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "see the top of %s" % __file__


@pytest.mark.parametrize("platform", sorted(KERNELS))
@pytest.mark.parametrize("release_id", releasing.known_ids(RELEASES))
def test_what_a_host_gets(release_id, platform):
    result = plan(release_id, platform)
    preferences = result["driver"].pop("preferences")
    text = yaml.dump(result, Dumper=Indented, sort_keys=False, width=110)
    compare("%s/%s.yml" % (release_id, platform), "---\n" + text)
    if result["manager"] == "apt":
        compare("%s/%s.pref" % (release_id, platform), preferences)
    else:
        assert preferences == ""


def test_there_is_a_file_for_every_plan_and_no_other():
    wanted = set()
    for release_id in releasing.known_ids(RELEASES):
        assert set(releasing.load(RELEASES, release_id)["platforms"]) == set(KERNELS)
        for platform in KERNELS:
            wanted.add("%s/%s.yml" % (release_id, platform))
            if platform != "rhel9":
                wanted.add("%s/%s.pref" % (release_id, platform))
    assert {str(path.relative_to(EXPECTED)) for path in EXPECTED.rglob("*.*") if path.is_file()} == wanted
