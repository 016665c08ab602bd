# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release with its facts, and the record of a host on which every link holds."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import venv

import parity_chain
import pytest


@pytest.fixture(scope="session")
def shipped():
    """The main release as it's in the tree, with the facts."""
    return parity_chain.RELEASE


@pytest.fixture
def release(shipped):
    """A copy of it that a test may change."""
    return copy.deepcopy(shipped)


@pytest.fixture
def options():
    """The module's options."""
    return copy.deepcopy(parity_chain.OPTIONS)


@pytest.fixture
def record(release):
    """The record of a host on which every link holds."""
    return parity_chain.good(release)


@pytest.fixture
def decide(record, release, options):
    """Decide about the test's record, release and options; return the findings by link."""

    # Here and not above: a conftest is loaded before the tree can be imported under its collection's name.
    from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity

    def by_link():
        found = {}
        for one in _cuda_parity.decide(record, release, options):
            found.setdefault(one["check"].split(".")[1], []).append(one)
        return found

    return by_link


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory):
    """Path of a libcuda.so.1 that answers what its environment says (libcuda.c)."""
    place = tmp_path_factory.mktemp("driver") / "compat" / "libcuda.so.1"
    place.parent.mkdir()
    source = parity_chain.HERE / "libcuda.c"
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-Wl,-soname,libcuda.so.1", "-o", str(place), str(source)]
    subprocess.run(command, check=True)
    return str(place)


@pytest.fixture(scope="session")
def fake_engine(tmp_path_factory):
    """An interpreter of its own whose torch is the one in fake_torch: what `-I` can't be talked out of."""
    place = tmp_path_factory.mktemp("engine")
    venv.create(place, symlinks=True, with_pip=False)
    interpreter = place / "bin" / "python3"
    where = subprocess.run(
        [str(interpreter), "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    shutil.copy(parity_chain.HERE / "fake_torch.py", os.path.join(where, "torch.py"))
    return str(interpreter)
