# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _proxy_clients

DIGEST = "a" * 64
DAY = "2026-12-01T00:00:00Z"
NEXT = "2026-12-02T00:00:00Z"


@pytest.mark.parametrize(
    ("line", "begin", "end"),
    [
        (DIGEST, None, None),
        (DIGEST + " " + DAY, None, 1796083200),
        (DIGEST + " -", None, None),
        (DIGEST + " " + DAY + " " + NEXT, 1796083200, 1796169600),
        (DIGEST + " " + DAY + " -", 1796083200, None),
        (DIGEST + " - " + DAY, None, 1796083200),
    ],
)
def test_a_key_has_a_begin_and_an_end(line: str, begin: int | None, end: int | None) -> None:
    assert _proxy_clients.parse_key(line) == {"sha256": DIGEST, "not_before": begin, "not_after": end}


@pytest.mark.parametrize(
    "line",
    [
        None,
        7,
        "",
        DIGEST[:-1],
        DIGEST.upper(),
        DIGEST + "  " + DAY,
        DIGEST + " tomorrow",
        DIGEST + " 2026-12-01",
        DIGEST + " 2026-02-30T00:00:00Z",
        DIGEST + " %s %s" % (NEXT, DAY),
        DIGEST + " %s %s" % (DAY, DAY),
        DIGEST + " %s %s x" % (DAY, NEXT),
    ],
)
def test_other_lines_are_no_keys(line: t.Any) -> None:
    assert _proxy_clients.parse_key(line) is None


def test_the_validating_client_is_not_there_twice() -> None:
    managed = {"gpu-validate": {"tier": "x"}, "late": {"state": "active"}, "gone": {"state": "revoked"}}
    merged = _proxy_clients.merge_managed([{"name": "demo"}, {"name": "gone"}], managed, "gpu-validate")
    assert [client["name"] for client in merged] == ["demo", "late"]


def test_the_inventory_goes_before_what_is_noted() -> None:
    merged = _proxy_clients.merge_managed([{"name": "demo", "tier": "a"}], {"demo": {"tier": "b", "x": 1}}, "v")
    assert merged == [{"name": "demo", "tier": "a", "x": 1}]
