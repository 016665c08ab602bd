# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built artefact: what is in it, that it installs, documents itself and runs by full names from anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile

import pytest
from support import ROOT, export_tree, load_yaml, roles

pytestmark = pytest.mark.slow

DOC_TYPES = {"modules": "module", "lookup": "lookup", "filter": "filter", "test": "test"}


def run(command, cwd, **environment):
    """Run a command of Ansible's away from the tree; return its stdout, show all of it when it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    clean.update({"ANSIBLE_HOME": str(cwd), "ANSIBLE_NOCOLOR": "1", **environment})
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, "%s\n%s\n%s" % (" ".join(command), done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """The tarball, built from a clean copy of the tree."""
    place = tmp_path_factory.mktemp("build")
    export_tree(place / "tree")
    run(["ansible-galaxy", "collection", "build", "--output-path", str(place), str(place / "tree")], place)
    (found,) = place.glob("gpufleet-llm-*.tar.gz")
    return found


@pytest.fixture(scope="module")
def installed(artefact, tmp_path_factory):
    """A directory that holds nothing but the installed artefact; its own working directory."""
    place = tmp_path_factory.mktemp("installed")
    command = ["ansible-galaxy", "collection", "install", "--offline", "--no-deps", "-p", str(place), str(artefact)]
    run(command, place, ANSIBLE_COLLECTIONS_PATH=str(place))
    return place


def from_copy(installed, command):
    return run(command, installed, ANSIBLE_COLLECTIONS_PATH=str(installed))


def test_the_artefact_holds_the_releases_and_no_link(artefact):
    with tarfile.open(artefact) as archive:
        members = archive.getmembers()
    names = {member.name for member in members}
    assert [member.name for member in members if member.issym() or member.islnk()] == []
    assert [name for name in names if name.split("/")[0] in ("collections", ".venv", ".cache", ".lab", ".git")] == []
    assert {"releases/schema.json", "releases/2026.11.0.yml", "releases/2026.11.0/vllm-cpu-py311.txt"} <= names
    assert {"playbooks/deploy_fleet.yml", "playbooks/tasks/install_gpu_stack.yml", "meta/runtime.yml"} <= names
    assert {"roles/%s/meta/argument_specs.yml" % role for role in roles()} <= names
    assert artefact.stat().st_size < 5_000_000


def test_the_manifest_is_ours(installed):
    manifest = json.loads((installed / "ansible_collections/gpufleet/llm/MANIFEST.json").read_text())
    info = manifest["collection_info"]
    assert (info["namespace"], info["name"]) == ("gpufleet", "llm")
    assert info["version"] == str(load_yaml(ROOT / "galaxy.yml")["version"])
    assert info["license"] == ["GPL-3.0-or-later"]


@pytest.mark.parametrize("folder", sorted(DOC_TYPES))
def test_every_plugin_documents_itself(installed, folder):
    files = {path.stem for path in (ROOT / "plugins" / folder).glob("*.py")}
    if not files:
        pytest.skip("no plugin of this type")
    listing = from_copy(installed, ["ansible-doc", "-t", DOC_TYPES[folder], "-l", "--json", "gpufleet.llm"])
    names = sorted(json.loads(listing))
    assert {name.split(".")[-1] for name in names} >= (files if folder in ("modules", "lookup") else set())
    docs = json.loads(from_copy(installed, ["ansible-doc", "-t", DOC_TYPES[folder], "--json", *names]))
    for name in names:
        found = docs[name]
        assert found["doc"]["short_description"], name
        assert found["doc"]["filename"].startswith(str(installed)), "%s was read from elsewhere" % name
        assert found["examples"], "%s has no example" % name


def test_every_role_documents_itself(installed):
    names = ["gpufleet.llm." + role for role in roles()]
    docs = json.loads(from_copy(installed, ["ansible-doc", "-t", "role", "--json", *names]))
    for name in names:
        entry = docs[name]["entry_points"]["main"]
        assert entry["short_description"], name
        assert entry["options"], name
        assert docs[name]["path"].startswith(str(installed))


def test_the_playbook_is_found_by_its_full_name(installed):
    (installed / "hosts.yml").write_text("gpufleet: {hosts: {h1: {}}}\n")
    command = ["ansible-playbook", "-i", "hosts.yml", "gpufleet.llm.deploy_fleet"]
    from_copy(installed, [*command, "--syntax-check"])
    listed = from_copy(installed, [*command, "--list-tasks"])
    for role in ("gpu_preflight", "model_store", "vllm", "llm_pki", "llm_proxy", "gpu_validate"):
        assert "gpufleet.llm.%s :" % role in listed


def test_the_release_lookup_reads_the_installed_releases(installed):
    expression = "{{ lookup('gpufleet.llm.release', '2026.11.0').engines.vllm.cpu.lock_path }}"
    shown = from_copy(
        installed, ["ansible", "localhost", "-i", "localhost,", "-m", "debug", "-a", "msg=%s" % expression]
    )
    assert str(installed / "ansible_collections/gpufleet/llm/releases/2026.11.0/vllm-cpu-py311.txt") in shown
