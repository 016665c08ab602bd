# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release lookup: what it refuses, what it completes, and that its schema checker agrees with jsonschema."""

from __future__ import annotations

import copy
import os
import random
import shutil

import jsonschema
import pytest
import yaml
from ansible_collections.gpufleet.llm.plugins.module_utils import _release as releasing
from ansible_collections.gpufleet.llm.plugins.module_utils import _release_schema
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import refusals

ID = "2026.11.0"
LEGACY = "2026.11.1"


@pytest.fixture(scope="module")
def directory(root):
    return str(root / "releases")


@pytest.fixture(scope="module")
def schema(directory):
    return releasing.read_schema(directory)


@pytest.fixture
def data(directory):
    return releasing.read(directory, ID)


def slim(data):
    """A release with one of everything that repeats: as many kinds of places, and fewer of each."""
    data = copy.deepcopy(data)
    data["platforms"] = {name: data["platforms"][name] for name in ("debian12", "rhel9")}
    data["package_sets"] = {"rhel": data["package_sets"]["rhel"]}
    data["package_sets"]["rhel"]["companions"] = [{"name": "nvlsm", "version": "2025.10.12-1"}]
    data["package_sets"]["rhel"]["conflicts"] = [{"name": "nvidia-driver-pinning-*", "reason": "Another pin."}]
    data["repositories"] = {"cuda-rhel9": data["repositories"]["cuda-rhel9"]}
    for key in ("kernel", "pinned", "unattended", "build"):
        del data["package_sets"]["rhel"][key][1:]
    for flavour in data["package_sets"]["rhel"]["packages"].values():
        for names in flavour.values():
            del names[1:]
    return data


@pytest.fixture
def copied(directory, tmp_path):
    """A copy of the releases directory, and a function that rewrites the release in it."""
    place = tmp_path / "releases"
    shutil.copytree(directory, place)

    def rewrite(change):
        path = place / (ID + ".yml")
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content))
        return str(place)

    rewrite.place = place
    return rewrite


# -- reading


def test_load_completes_the_release(directory):
    release = releasing.load(directory, ID)
    assert release["id"] == ID
    for _name, engine in releasing.engines(release):
        assert os.path.isabs(engine["lock_path"])
        assert os.path.isfile(engine["lock_path"])
        assert engine["lock_path"].endswith(engine["lock_file"])
    assert release["facts"] == releasing.read_facts(directory)
    assert release["driver"]["branch"] in release["facts"]["driver_branches"]


@pytest.mark.parametrize(
    "found", ["2026.12.0", "latest", "", "../2026.11.0", "2026.11.0.yml", 2026.1, None, ["2026.11.0"]]
)
def test_an_unknown_release_is_refused_with_the_known_ones(directory, found):
    with pytest.raises(releasing.ReleaseError) as caught:
        releasing.load(directory, found)
    message = str(caught.value)
    assert message.startswith("gpufleet_release: found %r" % (found,))
    assert ID in message.split("expected", 1)[1]
    assert "Remedy: " in message


def test_an_empty_directory_says_there_is_none(tmp_path):
    with pytest.raises(releasing.ReleaseError, match="there is none"):
        releasing.load(str(tmp_path), ID)


def test_ids_are_sorted_as_numbers(tmp_path):
    for name in ("2026.11.10.yml", "2026.11.9.yml", "2026.2.1.yml", "2025.12.0.yml", "schema.json", "notes.yml"):
        (tmp_path / name).write_text("")
    assert releasing.known_ids(str(tmp_path)) == ["2025.12.0", "2026.11.9", "2026.11.10"]


@pytest.mark.parametrize(
    ("text", "reason"), [("a: [", "is not YAML"), ("- a", "holds no mapping"), ("", "holds no mapping")]
)
def test_a_broken_file_is_refused(copied, text, reason):
    (copied.place / (ID + ".yml")).write_text(text)
    with pytest.raises(releasing.ReleaseError, match=reason):
        releasing.load(str(copied.place), ID)


def test_an_invalid_release_is_refused_with_every_reason(copied):
    def change(content):
        content["cuda"]["version"] = 13.0
        content["status"] = "latest"
        del content["platforms"]["debian12"]["glibc"]

    with pytest.raises(releasing.ReleaseError) as caught:
        releasing.load(copied(change), ID)
    message = str(caught.value)
    assert "At release.cuda.version" in message
    assert "Quote the value" in message
    assert "At release.status" in message
    assert "At release.platforms.debian12" in message
    assert "\n3. " in message


def test_a_missing_lock_file_is_refused(copied):
    os.unlink(copied.place / ID / "vllm-cpu-py311.txt")
    with pytest.raises(releasing.ReleaseError, match=r"release\.vllm\.cpu\.lock_file"):
        releasing.load(str(copied.place), ID)


def test_the_cache_gives_copies_and_sees_a_changed_file(copied):
    place = copied(lambda content: None)
    first = releasing.load_cached(place, ID)
    first["engines"]["vllm"]["cpu"]["version"] = "spoiled"
    assert releasing.load_cached(place, ID)["engines"]["vllm"]["cpu"]["version"] != "spoiled"
    copied(lambda content: content.update(summary="Another text, and a longer one."))
    assert releasing.load_cached(place, ID)["summary"] == "Another text, and a longer one."


def test_a_directory_of_ones_own_uses_what_the_collection_has(directory, tmp_path):
    """Without schema.json and facts.yml it gets the collection's; a release that isn't there, too."""
    data = releasing.read(directory, ID)
    data["engines"]["vllm"] = {"cpu": data["engines"]["vllm"]["cpu"]}
    data["summary"] = "Mine."
    shutil.copytree(os.path.join(directory, ID), tmp_path / ID)
    (tmp_path / "2027.01.0.yml").write_text(yaml.safe_dump(data))
    place = str(tmp_path)
    assert releasing.home_of("2027.01.0", place) == place
    assert releasing.home_of(ID, place) == releasing.COLLECTION_RELEASES
    assert os.path.samefile(releasing.COLLECTION_RELEASES, directory)
    assert releasing.home_of("2031.01.0", place) == place
    release = releasing.load(place, "2027.01.0")
    assert release["summary"] == "Mine."
    assert release["facts"]["gpus"]
    assert list(releasing.engines(release)) == [("vllm.cpu", release["engines"]["vllm"]["cpu"])]


def test_facts_of_ones_own_are_used_and_checked(copied):
    place = copied(lambda content: None)
    path = copied.place / "facts.yml"
    facts = yaml.safe_load(path.read_text())
    facts["container_toolkit"]["minimum_safe"] = "1.21.0"
    path.write_text(yaml.safe_dump(facts))
    assert releasing.load_cached(place, ID)["facts"]["container_toolkit"]["minimum_safe"] == "1.21.0"
    facts["gpus"]["2330"]["fabric"] = "ethernet"
    path.write_text(yaml.safe_dump(facts))
    with pytest.raises(releasing.ReleaseError, match=r"At facts\.gpus\.2330\.fabric"):
        releasing.load_cached(place, ID)


@pytest.mark.parametrize(
    ("key", "found"),
    [("debian12", "debian12"), ("rocky9", "rhel9"), ("ubuntu24", "ubuntu2404"), ("fedora44", None), ("", None)],
)
def test_a_platform_is_found_by_its_key_and_its_aliases(directory, key, found):
    platform = releasing.platform_of(releasing.load(directory, ID), key)
    assert (platform[0] if platform else None) == found


# -- the schema


VALIDATORS = {}


def both(data, schema):
    """Return (what our checker says, what jsonschema says), each as: is it valid?"""
    ours = not refusals(releasing.validate(data, schema))
    validator = VALIDATORS.setdefault(id(schema), jsonschema.Draft202012Validator(schema))
    return ours, validator.is_valid(data)


def test_the_schemas_are_themselves_valid(schema, directory):
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator.check_schema(releasing.read_schema(directory, releasing.FACTS_SCHEMA_FILE))


@pytest.mark.parametrize("release_id", [ID, LEGACY])
def test_both_checkers_accept_the_releases(directory, schema, release_id):
    assert both(releasing.read(directory, release_id), schema) == (True, True)


def test_both_checkers_accept_the_facts(directory):
    schema = releasing.read_schema(directory, releasing.FACTS_SCHEMA_FILE)
    facts = releasing.read_facts(directory)
    assert not refusals(releasing.validate(facts, schema, "facts"))
    jsonschema.Draft202012Validator(schema).validate(facts)


def test_both_checkers_agree_on_spoiled_facts(directory):
    schema = releasing.read_schema(directory, releasing.FACTS_SCHEMA_FILE)
    facts = releasing.read_facts(directory)
    chance = random.Random(2026)
    spots = [path for path in places(facts) if path]
    validator = jsonschema.Draft202012Validator(schema)
    rejected = 0
    for path in chance.sample(spots, 150):
        variant = copy.deepcopy(facts)
        at(variant, path[:-1])[path[-1]] = chance.choice([None, "13.0", 7, {}, [], "datacenter", False])
        ours = not refusals(releasing.validate(variant, schema, "facts"))
        assert ours == validator.is_valid(variant), path
        rejected += not ours
    assert rejected > 50


def places(value, path=()):
    """Yield the path of every node below a value."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from places(value[index], (*path, index))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def test_our_checker_agrees_with_jsonschema_on_every_mutation(data, schema):
    """Every node is replaced, removed or given a sibling; both checkers must call each result the same."""
    substitutes = [None, True, 0, -1, 13, 1.5, "", "x", "1.2", "580.65.06", "run", [], ["libnuma1"], {}, {"a": "b"}]
    rejected = accepted = 0
    data = slim(data)
    assert both(data, schema) == (True, True)
    for path in places(data):
        variants = []
        for substitute in substitutes:
            variant = copy.deepcopy(data)
            if path:
                at(variant, path[:-1])[path[-1]] = substitute
            else:
                variant = substitute
            variants.append(variant)
        if path:
            variant = copy.deepcopy(data)
            del at(variant, path[:-1])[path[-1]]
            variants.append(variant)
        if isinstance(at(data, path), dict):
            variant = copy.deepcopy(data)
            at(variant, path)["stray"] = "x"
            variants.append(variant)
        for variant in variants:
            ours, theirs = both(variant, schema)
            assert ours == theirs, "at %s: ours says %s, jsonschema says %s" % (path, ours, theirs)
            rejected, accepted = rejected + (not ours), accepted + ours
    assert rejected > 500
    assert accepted > 20


def test_our_checker_agrees_with_jsonschema_on_several_mutations_at_once(data, schema):
    chance = random.Random(2026)
    data = slim(data)
    spots = [path for path in places(data) if path]
    for _round in range(300):
        variant = copy.deepcopy(data)
        for path in chance.sample(spots, 3):
            try:
                at(variant, path[:-1])[path[-1]] = chance.choice([None, "13.0", 7, {}, [], "supported", False])
            except (KeyError, IndexError, TypeError):
                continue
        ours, theirs = both(variant, schema)
        assert ours == theirs


def test_a_keyword_the_checker_does_not_know_is_an_error():
    with pytest.raises(ValueError, match="maxLength"):
        releasing.validate("abc", {"type": "string", "maxLength": 2})


def test_a_schema_that_lets_other_keys_in_is_an_error():
    with pytest.raises(ValueError, match="additionalProperties: True"):
        _release_schema.validate({}, {"additionalProperties": True})


# -- lock files


def test_parse_lock():
    digest = "a" * 64
    lock = releasing.parse_lock(
        "# comment\n"
        "torch==2.1.0+cpu \\\n    --hash=sha256:%s \\\n    --hash=sha256:%s\n"
        "\n"
        "Some_Name[extra]==1.0 ; python_version < '3.12' --hash=sha256:%s  # why\n"
        "loose>=1\n"
        "unhashed==3\n" % (digest, "b" * 64, digest)
    )
    assert [tuple(requirement) for requirement in lock] == [
        ("torch", "2.1.0+cpu", 2, 2),
        ("some-name", "1.0", 1, 6),
        ("loose>=1", "", 0, 7),
        ("unhashed", "3", 0, 8),
    ]


def test_parse_lock_does_not_count_a_short_hash():
    assert releasing.parse_lock("a==1 --hash=sha256:abc")[0].hashes == 0


@pytest.mark.parametrize(
    ("older", "newer"),
    [("580.65.06", "580.126.09"), ("2.9", "2.36"), ("9.0", "10.0"), ("575.57.08", "580"), ("13.0", "13.0.1")],
)
def test_versions_compare_as_numbers(older, newer):
    assert releasing.numbers(older) < releasing.numbers(newer)


# -- the plugin


def lookup_with(monkeypatch, **options):
    from ansible_collections.gpufleet.llm.plugins.lookup import release as plugin

    lookup = plugin.LookupModule()
    monkeypatch.setattr(lookup, "set_options", lambda **kwargs: None)
    monkeypatch.setattr(lookup, "get_option", options.get)
    return lookup


def test_the_lookup_returns_the_release_and_refuses_an_unknown_one(monkeypatch):
    from ansible.errors import AnsibleLookupError

    lookup = lookup_with(monkeypatch, directory="")
    assert [found["id"] for found in lookup.run([ID, LEGACY])] == [ID, LEGACY]
    with pytest.raises(AnsibleLookupError, match="gpufleet_release: found 'x'"):
        lookup.run(["x"])


def test_the_lookup_reads_a_directory_of_ones_own(monkeypatch, copied):
    os.unlink(copied.place / (LEGACY + ".yml"))
    place = copied(lambda content: content.update(summary="Mine."))
    mine, theirs = lookup_with(monkeypatch, directory=place).run([ID, LEGACY])
    assert mine["summary"] == "Mine."
    assert mine["engines"]["vllm"]["cpu"]["lock_path"].startswith(place)
    assert theirs["engines"]["vllm"]["cuda"]["lock_path"].startswith(releasing.COLLECTION_RELEASES)
