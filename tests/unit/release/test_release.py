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
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import refusals

ID = "2026.11.0"


@pytest.fixture(scope="module")
def directory(root):
    return str(root / "releases")


@pytest.fixture(scope="module")
def schema(directory):
    return releasing.read_schema(directory)


@pytest.fixture
def data(directory):
    return releasing.read(directory, ID)


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


# -- the schema


def both(data, schema):
    """Return (what our checker says, what jsonschema says), each as: is it valid?"""
    ours = not refusals(releasing.validate(data, schema))
    theirs = jsonschema.Draft202012Validator(schema).is_valid(data)
    return ours, theirs


def test_the_schema_is_itself_valid(schema):
    jsonschema.Draft202012Validator.check_schema(schema)


def test_both_checkers_accept_the_release(data, schema):
    assert both(data, schema) == (True, True)


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
    for _round in range(300):
        variant = copy.deepcopy(data)
        for path in chance.sample([path for path in places(data) if path], 3):
            try:
                at(variant, path[:-1])[path[-1]] = chance.choice([None, "13.0", 7, {}, [], "supported", False])
            except (KeyError, IndexError, TypeError):
                continue
        ours, theirs = both(variant, schema)
        assert ours == theirs


def test_a_keyword_the_checker_does_not_know_is_an_error():
    with pytest.raises(ValueError, match="maxLength"):
        releasing.validate("abc", {"type": "string", "maxLength": 2})


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


# -- consistency


def failed(release):
    return {finding["check"] for finding in refusals(releasing.check_consistency(release))}


def test_the_release_is_consistent(directory):
    assert failed(releasing.load(directory, ID)) == set()


def set_driver(**values):
    return lambda release: release["driver"].update(values)


def set_engine(accelerator, **values):
    return lambda release: release["engines"]["vllm"][accelerator].update(values)


CPU_LOCK = "%s/vllm-cpu-py311.txt" % ID
CUDA_LOCK = "%s/vllm-cuda-py312.txt" % ID


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (set_driver(branch="575"), {"release.driver.cuda"}),
        (set_driver(branch="580", version="580.65.05"), {"release.driver.cuda", "release.vllm.cuda.driver"}),
        (set_driver(branch="590", version="580.126.09"), {"release.driver.branch"}),
        (set_driver(branch="580", version="580.65.06"), set()),
        (set_driver(branch="595", version="595.58.03"), set()),
        (lambda release: release.pop("driver"), set()),
        (lambda release: release["cuda"].update(version="13.2"), {"release.vllm.cuda.lock.cuda"}),
        (set_engine("cuda", minimum_driver="525.60.13"), {"release.vllm.cuda.minimum_driver"}),
        (set_engine("cuda", minimum_driver=None), {"release.vllm.cuda.minimum_driver"}),
        (set_engine("cuda", minimum_compute_capability="7.0"), {"release.vllm.cuda.minimum_compute_capability"}),
        (set_engine("cuda", minimum_compute_capability="10.0"), set()),
        (set_engine("cuda", python="3.13"), {"release.vllm.cuda.python"}),
        (set_engine("cuda", version="0.33.0"), {"release.vllm.cuda.lock.version"}),
        (
            set_engine("cpu", distributions=[{"name": "torch", "version": "1"}]),
            {"release.vllm.cpu.distributions"},
        ),
        (
            set_engine("cpu", minimum_glibc="2.37"),
            {"release.vllm.cpu.glibc.debian12"},
        ),
        (
            set_engine("cpu", packages={"redhat": []}),
            {"release.vllm.cpu.packages.debian12", "release.vllm.cpu.packages.debian13"},
        ),
    ],
)
def test_an_inconsistent_release_names_the_broken_link(directory, change, broken):
    release = releasing.load(directory, ID)
    change(release)
    assert failed(release) == broken


@pytest.mark.parametrize(
    ("lock_file", "old", "new", "broken"),
    [
        (CUDA_LOCK, "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-runtime==12.8.90", "release.vllm.cuda.lock.cuda"),
        (CUDA_LOCK, "\ntorch==", "\ntorch-other==", "release.vllm.cuda.lock.cuda"),
        (CPU_LOCK, "agent-detector==", "nvidia-cuda-runtime==", "release.vllm.cpu.lock.cuda"),
        (CPU_LOCK, "torch==2.13.0+cpu \\", "torch==2.13.0+cpu\n#", "release.vllm.cpu.lock.hashes"),
        (CPU_LOCK, "agent-detector==", "agent-detector>=", "release.vllm.cpu.lock.hashes"),
    ],
)
def test_a_lock_file_that_does_not_fit_names_the_broken_link(copied, lock_file, old, new, broken):
    path = copied.place / lock_file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert broken in failed(releasing.load(str(copied.place), ID))


def test_an_empty_lock_file_is_refused(copied):
    (copied.place / CPU_LOCK).write_text("# nothing\n")
    assert "release.vllm.cpu.lock.hashes" in failed(releasing.load(str(copied.place), ID))


# -- the plugin


def test_the_lookup_returns_the_release_and_refuses_an_unknown_one():
    from ansible.errors import AnsibleLookupError
    from ansible_collections.gpufleet.llm.plugins.lookup import release as plugin

    lookup = plugin.LookupModule()
    lookup.set_options = lambda **kwargs: None
    assert [found["id"] for found in lookup.run([ID, ID])] == [ID, ID]
    with pytest.raises(AnsibleLookupError, match="gpufleet_release: found 'x'"):
        lookup.run(["x"])
