# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the site's scenario."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from site_client import Site

PORT = 8443
UNIT = "vllm@smollm2-a.service"


@pytest.fixture
def site(host):
    variables = host.ansible.get_variables()
    control = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "control"
    return Site(url=f"https://{variables['ansible_host']}:{PORT}", model="smollm2", pki=control / "pki")


@pytest.fixture
def receipts():
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "control" / "receipts"


def pytest_collection_modifyitems(config, items):
    """Leave a test marked one_host out on every host but the Debian 12 one: it isn't reported there as passed."""
    left_out = [i for i in items if i.get_closest_marker("one_host") and "site-bookworm" not in i.callspec.id]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
