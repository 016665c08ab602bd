# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures; imports of the collection wait until the tree is importable by its name."""

from __future__ import annotations

import typing as t

import pytest


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> t.Any:
    """A CA, a server's certificate, a client's certificate and API key."""
    from unit.validate.mock_endpoint import make_pki

    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def start(pki: t.Any) -> t.Iterator[t.Any]:
    """A function that starts an endpoint; all of them end with the test."""
    from unit.validate.mock_endpoint import starter

    servers: list[t.Any] = []
    yield starter(pki, servers)
    for server in servers:
        server.shutdown()
        server.server_close()
