# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's key on a host."""

from __future__ import annotations

import os
import re
import stat

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _engine_credential as credential


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_missing_key_is_made_and_given_to_both_readers(tmp_path):
    place = str(tmp_path / "credentials")
    answer = credential.converge(place, ["m-a", "m-b"], None, dry=False)
    assert answer["rekeyed"] == ["m-a", "m-b"]
    keys = [(tmp_path / "credentials" / (i + ".api_key")).read_text() for i in ("m-a", "m-b")]
    assert all(re.fullmatch(r"sk-[0-9a-f]{64}", key) for key in keys)
    assert keys[0] != keys[1]
    header = (tmp_path / "credentials" / "m-a.authorization.conf").read_text()
    assert header == 'proxy_set_header Authorization "Bearer %s";\n' % keys[0]
    assert mode(place) == 0o700
    assert {mode(os.path.join(place, name)) for name in os.listdir(place)} == {0o600}


def test_the_second_run_changes_nothing(tmp_path):
    place = str(tmp_path / "c")
    credential.converge(place, ["m-a"], None, dry=False)
    before = credential.read(credential.key_path(place, "m-a"))
    assert credential.converge(place, ["m-a"], None, dry=False) == {"touched": [], "rekeyed": []}
    assert credential.read(credential.key_path(place, "m-a")) == before


@pytest.mark.parametrize("text", ["", "\n", "short", "two words " * 8])
def test_a_key_on_the_host_that_authenticates_nobody_is_replaced(tmp_path, text):
    place = str(tmp_path / "c")
    credential.converge(place, ["m-a"], None, dry=False)
    credential.write(credential.key_path(place, "m-a"), text)
    assert credential.converge(place, ["m-a"], None, dry=False)["rekeyed"] == ["m-a"]
    assert len(credential.read(credential.key_path(place, "m-a")) or "") == 67


def test_a_given_key_wins_and_a_loose_mode_is_mended_without_a_new_key(tmp_path):
    place = str(tmp_path / "c")
    credential.converge(place, ["m-a"], "k" * 40, dry=False)
    path = credential.key_path(place, "m-a")
    os.chmod(path, 0o644)
    answer = credential.converge(place, ["m-a"], None, dry=False)
    assert answer == {"touched": [path], "rekeyed": []}
    assert mode(path) == 0o600
    assert credential.read(path) == "k" * 40


def test_check_mode_tells_and_touches_nothing(tmp_path):
    place = str(tmp_path / "c")
    answer = credential.converge(place, ["m-a"], None, dry=True)
    assert answer["rekeyed"] == ["m-a"]
    assert not os.path.exists(place)


def test_a_planted_link_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path = tmp_path / "x.api_key"
    os.symlink(victim, str(path) + ".new")
    credential.write(str(path), "secret")
    assert victim.read_text() == "mine"
