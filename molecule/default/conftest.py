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
