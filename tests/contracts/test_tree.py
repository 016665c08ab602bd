# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree as a whole: pins live in releases/ only, playbooks hold no logic, nothing of a machine is in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _release as releasing
from support import ROOT, load_yaml, plays_of, roles, text_files, tree_files

RELEASES = str(ROOT / "releases")

# Where a version of the stack may stand, and why.
PINS_ALLOWED = {
    "releases/": "the pins themselves",
    "changelogs/": "what changed is history, and names what it changed from",
    "CHANGELOG.md": "generated from changelogs/",
    "tests/unit/release/": "the decision table of the release's own consistency",
    "tests/unit/gpu_stack_plan/": "the decision table of what a host gets from a release",
    "tests/golden/gpu_stack/": "what a host gets from a release, byte for byte",
    "plugins/module_utils/_memory_plan_rules.py": "the releases whose arithmetic was read: facts about them, no pins",
    "tests/accuracy/": "public logs, and what releases of the engine printed when they started",
    "tests/unit/startup_info/": "what releases of the engine printed when they started",
}
PRODUCTS = (
    r"vllm(?:-cpu)?|torch|cuda(?:-toolkit)?|cudnn|nccl|triton|transformers|nginx|nvidia-driver|nvidia-container-toolkit"
)
PRODUCT_VERSION = re.compile(
    r"(?<![\w.-])(?:%s)(?:==|>=|=|@|:v?| v?|-v?|/)\d+\.\d+(?:\.\d+)?(?![\w-])" % PRODUCTS, re.IGNORECASE
)
GENERATED = re.compile(r"<!-- ([\w-]+):begin -->.*?<!-- \1:end -->", re.DOTALL)

PLAY_KEYS = {
    "name", "hosts", "gather_facts", "gather_subset", "serial", "max_fail_percentage", "any_errors_fatal", "tags",
    "roles", "tasks", "vars", "connection", "become", "import_playbook", "ansible.builtin.import_playbook",
}  # fmt: skip
PLAY_TASKS = {
    "ansible.builtin.import_role", "ansible.builtin.include_role",
    "ansible.builtin.import_tasks", "ansible.builtin.include_tasks",
}  # fmt: skip


def pinned_versions():
    """Return the versions a release pins that can't be mistaken for something else: of three parts or more."""
    found = set()
    for release_id in releasing.known_ids(RELEASES):
        release = releasing.load(RELEASES, release_id)
        versions = [release["cuda"]["minimum_driver"], release.get("driver", {}).get("version") or ""]
        for _name, engine in releasing.engines(release):
            versions += [engine["version"], engine["minimum_driver"] or ""]
            with open(engine["lock_path"], encoding="utf-8") as handle:
                lock = {requirement.name: requirement.version for requirement in releasing.parse_lock(handle.read())}
            versions += [lock["torch"], lock["transformers"]]
        found |= {version for version in versions if version.count(".") >= 2}
    return found


def test_no_version_of_the_stack_outside_the_releases():
    pins = re.compile(r"(?<![\w.])(?:%s)(?![\w.]*\d)" % "|".join(map(re.escape, sorted(pinned_versions()))))
    stray = []
    for path, text in text_files():
        if any(str(path).startswith(place) for place in PINS_ALLOWED):
            continue
        text = GENERATED.sub("", text)
        is_lock = path.parts[0] == "requirements" and path.suffix == ".txt"
        for number, line in enumerate(text.splitlines(), 1):
            if is_lock:
                continue
            hit = pins.search(line) or (PRODUCT_VERSION.search(line) if path.parts[0] != "tests" else None)
            if hit:
                stray.append("%s:%d: %s" % (path, number, hit.group(0)))
    assert stray == [], "write it in releases/<id>.yml and read it by the release lookup"


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("pip install vllm==9.1.0", True),
        ("the image is nginx:1.22", True),
        ("cuda-toolkit 12.4", True),
        ("vllm@smollm2-a.service", False),
        ("engines.vllm.cpu", False),
        ("vllm-cpu-py311.txt", False),
        ("nginx 443", False),
    ],
)
def test_the_search_for_versions_finds_them(line, caught):
    assert bool(PRODUCT_VERSION.search(line)) is caught


def machine_strings():
    """Return what would give this machine away: where the tree lies, and where its packages come from."""
    found = {str(ROOT), str(Path(RELEASES).parent.resolve())}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    settings = re.findall(r"='(.*)'$", listed.stdout, re.MULTILINE)
    settings += [
        value for name, value in os.environ.items() if re.match(r"(?i)^(pip_|uv_)?(.*index.*|.*find_links)$", name)
    ]
    for setting in settings:
        for value in setting.split():
            location = re.sub(r"^file://", "", value)
            host = re.match(r"^https?://(?:[^@/]*@)?([^/:]+)", value)
            if host:
                found.add(host.group(1))
            elif location.startswith("/") and not location.startswith(("/etc/", "/usr/")):
                found.add(location.rstrip("/"))
    return {text for text in found if len(text) > 5}


def test_nothing_of_this_machine_is_in_the_tree():
    wrong = []
    secrets = machine_strings()
    for path, text in text_files():
        wrong += ["%s holds %s" % (path, secret) for secret in secrets if secret in text]
    assert wrong == []


def test_requirement_files_name_no_index():
    wrong = []
    for path in tree_files("requirements/*.txt", "requirements/*.in", "releases/*/*.txt", "releases/*/*.in"):
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
            if not line.startswith("#") and re.search(r"--(index|extra-index|find-links|trusted)|://", line):
                wrong.append("%s:%d" % (path, number))
    assert wrong == []


@pytest.mark.parametrize("path", tree_files("requirements/*-py*.txt"), ids=str)
def test_control_locks_are_hashed_and_hold_what_is_asked_for(path):
    lock = releasing.parse_lock((ROOT / path).read_text(encoding="utf-8"))
    assert lock
    assert [requirement.name for requirement in lock if not requirement.version or not requirement.hashes] == []
    asked = re.sub(r"-py\d+\.txt$", ".in", str(path))
    wanted = []
    for line in (ROOT / asked).read_text(encoding="utf-8").splitlines():
        name = re.match(r"^[A-Za-z0-9][A-Za-z0-9._-]*", line)
        wanted += [re.sub(r"[-_.]+", "-", name.group(0)).lower()] if name else []
    assert wanted
    assert sorted(set(wanted) - {requirement.name for requirement in lock}) == []


@pytest.mark.parametrize("path", tree_files("playbooks/*.yml"), ids=str)
def test_playbooks_are_lists_of_roles(path):
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+\.yml", path.name), "verb_noun.yml: a dash isn't found by FQCN"
    for play in plays_of(ROOT / path):
        assert set(play) <= PLAY_KEYS, sorted(set(play) - PLAY_KEYS)
        assert not ("roles" in play and "tasks" in play)
        for task in play.get("tasks", []):
            assert PLAY_TASKS & set(task), "%s is no role" % task.get("name")


def test_deploy_fleet_runs_the_roles_in_order_under_their_tags():
    order = []
    for play in plays_of(ROOT / "playbooks/deploy_fleet.yml"):
        for task in play.get("tasks", []):
            if "ansible.builtin.import_role" in task:
                role = task["ansible.builtin.import_role"]["name"].split(".")[-1]
                assert task["tags"] == [role]
                order.append(role)
            elif "ansible.builtin.include_role" in task:
                included = task["ansible.builtin.include_role"]
                role = included["name"].split(".")[-1]
                assert task["tags"] == included["apply"]["tags"] == [role]
                order.append("%s/%s" % (role, included["tasks_from"]))
            else:
                order.append(task["ansible.builtin.include_tasks"]["file"])
    assert order == [
        "gpu_preflight", "tasks/install_gpu_stack.yml", "model_store", "vllm", "llama_cpp/main.yml", "llm_pki",
        "llm_proxy", "llm_watchdog", "vllm/retire.yml", "gpu_validate",
    ]  # fmt: skip


def test_gpu_hosts_get_the_three_roles_in_order_and_are_not_refused():
    tasks = load_yaml(ROOT / "playbooks/tasks/install_gpu_stack.yml")
    named = [task["ansible.builtin.import_role"]["name"].split(".")[-1] for task in tasks]
    assert named == ["nvidia_driver", "cuda_toolkit", "nvidia_container_toolkit"]
    assert sorted(set(named) - set(roles())) == []
    assert [task["tags"] for task in tasks] == [[name] for name in named]


def test_inventories_hold_one_version():
    for path in tree_files("inventories/*/group_vars/*.yml", "inventories/*/group_vars/*/*.yml"):
        content = load_yaml(ROOT / path) or {}
        if "gpufleet_release" in content:
            assert content["gpufleet_release"] in releasing.known_ids(RELEASES), path
        assert not any(re.search(r"_version$", name) for name in content), path


def test_the_artefact_leaves_out_the_link_and_what_is_made():
    galaxy = load_yaml(ROOT / "galaxy.yml")
    assert {"collections", ".venv", ".cache", ".lab", ".ansible"} <= set(galaxy["build_ignore"])
    assert galaxy["license"] == ["GPL-3.0-or-later"]
    assert (galaxy["namespace"], galaxy["name"]) == ("gpufleet", "llm")
    required = {entry["name"] for entry in load_yaml(ROOT / "requirements.yml")["collections"]}
    assert required == set(galaxy["dependencies"])
    for entry in load_yaml(ROOT / "requirements.yml")["collections"]:
        assert re.fullmatch(r"\d+\.\d+\.\d+", entry["version"]), "%s: exact versions only" % entry["name"]


def test_the_tree_is_reachable_under_its_name():
    assert (ROOT / "collections/ansible_collections/gpufleet/llm").resolve() == ROOT
    assert (ROOT / "collections/requirements.yml").resolve() == ROOT / "requirements.yml"
    assert re.search(
        r"^collections_path = \./collections$", (ROOT / "ansible.cfg").read_text(encoding="utf-8"), re.MULTILINE
    )


def test_the_licence_is_there():
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:400]


def test_lint_skips_nothing():
    config = load_yaml(ROOT / ".ansible-lint")
    assert config["profile"] == "production"
    assert config["skip_list"] == []
    assert config["warn_list"] == []
    assert not (ROOT / ".ansible-lint-ignore").exists()
    bare = []
    for path, text in text_files():
        if path.suffix in (".yml", ".yaml", ".j2"):
            for number, line in enumerate(text.splitlines(), 1):
                if re.search(r"#\s*noqa", line) and not re.search(r"#\s*noqa[: ]\s*[\w\[\]-]+\s+(-+|#)\s*\w+", line):
                    bare.append("%s:%d" % (path, number))
    assert bare == [], "a noqa without its reason on the line"


def test_json_files_parse():
    for path in tree_files("*.json"):
        json.loads((ROOT / path).read_text(encoding="utf-8"))
