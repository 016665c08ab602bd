# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every release: it holds to the schema and its parts fit together. What breaks them is in tests/unit/release."""

from __future__ import annotations

import jsonschema
import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _release as releasing
from ansible_collections.gpufleet.llm.plugins.module_utils import _release_check
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import describe, refusals
from support import ROOT, load_yaml

RELEASES = str(ROOT / "releases")
IDS = releasing.known_ids(RELEASES)


def test_there_is_a_release():
    assert IDS


def test_every_file_in_releases_is_a_release_or_belongs_to_one():
    for path in (ROOT / "releases").iterdir():
        beside = path.name in (releasing.SCHEMA_FILE, releasing.FACTS_FILE, releasing.FACTS_SCHEMA_FILE)
        assert beside or (path.suffix == ".yml" and path.stem in IDS) or path.name in IDS, path


@pytest.mark.parametrize("release_id", IDS)
def test_a_release_is_valid(release_id):
    schema = releasing.read_schema(RELEASES)
    data = releasing.read(RELEASES, release_id)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(data)
    assert [describe(finding) for finding in releasing.validate(data, schema)] == []


@pytest.mark.parametrize("release_id", IDS)
def test_a_release_is_consistent(release_id):
    findings = _release_check.check_consistency(releasing.load(RELEASES, release_id))
    assert len(findings) > 90
    assert [describe(finding) for finding in refusals(findings)] == []


@pytest.mark.parametrize("release_id", IDS)
def test_the_lock_files_of_a_release_can_be_made_again(release_id):
    """Beside every lock file lie what it was made from, and how."""
    for _name, engine in releasing.engines(releasing.load(RELEASES, release_id)):
        with open(engine["lock_path"], encoding="utf-8") as handle:
            header = [line for line in handle.read().splitlines()[:3] if line.startswith("#")]
        assert "tools/lock.sh" in header[0]
        assert "--generate-hashes --no-emit-index-url" in header[1]
        for word in header[1].split():
            if word.endswith((".in", ".overrides.txt")):
                assert (ROOT / "releases" / release_id / word).is_file()


def test_the_platforms_are_the_roles_platforms():
    """The support matrix and the roles' Galaxy metadata name the same versions: codenames, or EL's numbers."""
    codenames = {
        key.lstrip("abcdefghijklmnopqrstuvwxyz") if platform["os_family"] == "redhat" else platform["codename"]
        for release_id in IDS
        for key, platform in releasing.load(RELEASES, release_id)["platforms"].items()
    }
    for meta in (ROOT / "roles").glob("*/meta/main.yml"):
        for platform in load_yaml(meta)["galaxy_info"].get("platforms", []):
            assert set(platform.get("versions", [])) <= codenames, meta
