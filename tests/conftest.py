# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every test may use: the tree under its collection name."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Make ``import ansible_collections.gpufleet.llm...`` find this very tree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

    if not any(isinstance(hook, _AnsibleCollectionFinder) for hook in sys.meta_path):
        _AnsibleCollectionFinder(paths=[str(ROOT / "collections")])._install()


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the tree."""
    return ROOT
