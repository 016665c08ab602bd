# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the plan share: releases, and a short way to a plan."""

from __future__ import annotations

import copy

import pytest
from gpu_stack_hosts import DEBIAN_ARCHIVE, host

ID = "2026.11.0"


@pytest.fixture(scope="session")
def _loaded():
    from ansible_collections.gpufleet.llm.plugins.module_utils import _release as releasing

    return releasing.load(releasing.COLLECTION_RELEASES, ID)


@pytest.fixture
def release(_loaded):
    """The shipped release, to spoil."""
    return copy.deepcopy(_loaded)


@pytest.fixture
def debian_archive(release):
    """A release with Debian's own driver on Debian 12."""
    for part in ("driver", "cuda"):
        release[part].update(DEBIAN_ARCHIVE[part])
    release["package_sets"]["debian"].update(DEBIAN_ARCHIVE["package_set"])
    release["platforms"] = {"debian12": release["platforms"]["debian12"]}
    release["platforms"]["debian12"]["nvidia"]["driver_repository"] = None
    return release


@pytest.fixture
def plan(release):
    """Plan for a host of the shipped release: ``plan("2330", platform="rhel9", options={...}, installed={...})``."""

    from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan as planning

    def make(*device_ids, options=None, **more):
        return planning.gpu_stack_plan(release, host(*device_ids, **more), options)

    return make
