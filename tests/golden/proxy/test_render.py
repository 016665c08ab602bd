# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy's rendered files are the recorded ones. To record anew: ``GPUFLEET_RECORD=1 pytest tests/golden/proxy``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import render  # it stands beside this file, which isn't a package

EXPECTED = Path(__file__).with_name("expected")


def recorded() -> dict[str, str]:
    return {"/" + str(p.relative_to(EXPECTED)): p.read_text() for p in EXPECTED.rglob("*") if p.is_file()}


def test_rendered_files_are_the_recorded_ones() -> None:
    rendered = render.render(render.inputs())
    if os.environ.get("GPUFLEET_RECORD"):
        for dest, text in rendered.items():
            path = EXPECTED / dest.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    assert rendered == recorded()


@pytest.mark.parametrize(("platform", "known"), [("debian12", False), ("debian13", True)])
def test_post_quantum_group_only_where_openssl_knows_it(platform: str, known: bool) -> None:
    tls = render.render(render.inputs(), platform)["/etc/gpufleet/proxy/tls.conf"]
    assert ("X25519MLKEM768" in tls) is known


def test_modern_profile_has_no_tls_1_2() -> None:
    tls = render.render(render.inputs(), llm_proxy_tls_profile="modern")["/etc/gpufleet/proxy/tls.conf"]
    assert "ssl_protocols TLSv1.3;" in tls
    assert "ssl_ciphers" not in tls


def test_no_path_of_ours_is_absolute_in_the_configuration() -> None:
    """Otherwise nginx -t on the staged files would read the files that are served."""
    for dest, text in render.render(render.inputs()).items():
        if dest.startswith("/etc/gpufleet/proxy/"):
            assert "/etc/gpufleet/proxy" not in text, dest


def test_every_endpoint_goes_to_a_constant_path_behind_the_guard() -> None:
    text = render.render(render.inputs())["/etc/gpufleet/proxy/servers/smollm2.conf"]
    outer = text.split("location = ")[1:]
    inner = text.split("    location @engine_")[1:]
    paths = [endpoint["path"] for endpoint in render.inputs()["endpoints"]]
    assert [part.split(" ")[0] for part in outer] == paths
    for number, (path, location, engine) in enumerate(zip(paths, outer, inner), 1):
        assert "include guard.conf;" in location.split("}")[1]
        assert "set $engine_location @engine_%d;" % number in location
        assert engine.startswith("%d {" % number)
        assert "proxy_pass http://$pool_m0%s;" % path in engine
        assert "include /etc/gpufleet/credentials/smollm2-a.authorization.conf;" in engine


def test_a_model_without_a_fallback_has_no_way_to_one() -> None:
    files = render.render(render.inputs())
    assert "backup" not in files["/etc/gpufleet/proxy/upstreams/smollm2.conf"]
    assert "fallback_1" not in files["/etc/gpufleet/proxy/servers/smollm2.conf"]
    assert "@fallback_1" in files["/etc/gpufleet/proxy/servers/tiny.1.conf"]


def test_no_map_is_a_regular_expression() -> None:
    """nginx before 1.22.1-9+deb12u10 overflows a buffer in maps with them (CVE-2026-42533)."""
    for dest, text in render.render(render.inputs()).items():
        for block in text.split("map ")[1:] if dest.endswith(".conf") else []:
            assert "~" not in block.split("}")[0], dest


def test_unit_outlives_the_longest_stream() -> None:
    files = render.render(render.inputs(), llm_proxy_longest_stream_seconds=900)
    assert "worker_shutdown_timeout 900s;" in files["/etc/gpufleet/proxy/nginx.conf"]
    assert "TimeoutStopSec=915" in files["/etc/systemd/system/llm-proxy.service"]


def test_no_filter_of_the_role_loses_the_order() -> None:
    """Ansible's set filters give another order at every run: a change, and a reload, that nobody made."""
    for name in ("vars", "defaults", "tasks", "templates"):
        for path in (render.ROLE / name).iterdir():
            for word in ("difference(", "union(", "intersect("):
                assert word not in path.read_text(), path
