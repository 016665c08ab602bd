# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/docs.py: tables from argument specs and from the release, and a check that notices what is stale."""

from __future__ import annotations

import importlib.util
import sys

import pytest

SPECS = """
argument_specs:
  main:
    short_description: A role
    options:
      demo_port:
        type: int
        required: true
        description: Port of O(demo_name), in V(1)-V(65535).
      demo_names:
        type: list
        elements: dict
        default: [{"name": "a|b"}]
        description: [Names., "A second sentence, see L(there,https://example.net)."]
        options:
          name:
            type: str
            choices: [a, b]
            description: The name.
      demo_key:
        type: str
        description: C(key).
"""


@pytest.fixture
def docs(root, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("docs", root / "tools/docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    role = tmp_path / "roles/demo"
    (role / "meta").mkdir(parents=True)
    (role / "meta/argument_specs.yml").write_text(SPECS)
    (role / "README.md").write_text("# demo\n\n<!-- inputs:begin -->\nstale\n<!-- inputs:end -->\n\nAfter.\n")
    (tmp_path / "README.md").write_text("# top\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/support-matrix.md").write_text("# matrix\n")
    (tmp_path / "releases").symlink_to(root / "releases")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    module.place = tmp_path
    return module


def run(docs, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["docs.py", *arguments])
    return docs.main()


def test_the_table_of_inputs(docs):
    assert docs.inputs(docs.place / "roles/demo").splitlines() == [
        "| input | type | default | what it is |",
        "|---|---|---|---|",
        "| `demo_port` | int | **required** | Port of `demo_name`, in `1`-`65535`. |",
        '| `demo_names` | list of dict | `[{"name": "a\\|b"}]` | Names. A second sentence, see https://example.net. |',
        "| `demo_names[].name` | str | none | The name. One of `a`, `b`. |",
        "| `demo_key` | str | none | `key`. |",
    ]


def test_the_matrix_names_every_platform_and_what_was_proved(docs):
    matrix = docs.platforms()
    known = docs.releases()
    newest = docs.newest_releases(known)
    assert newest == ["2026.11.0", "2026.11.1"]
    for release_id in newest:
        release = known[release_id]
        assert "Release `%s` (%s, %s series)" % (release_id, release["status"], release["series"]) in matrix
        for platform in release["platforms"].values():
            assert platform["title"] in matrix
            assert docs.STACK_PROVEN[platform["nvidia"]["proven"]] in matrix
        assert release["engines"]["vllm"]["cuda"]["version"] in matrix
        assert release["driver"]["version"] in matrix
    assert docs.PROVEN["run"] in matrix
    assert "| Blackwell | 10.0, 10.3, 12.0, 12.1 | open | NVIDIA B200," in matrix
    assert "Pascal" not in matrix


def test_the_newest_of_each_series_is_shown_the_main_one_first(docs):
    known = {
        "2026.11.0": {"series": "main"},
        "2026.11.1": {"series": "legacy"},
        "2026.12.0": {"series": "main"},
    }
    assert docs.newest_releases(known) == ["2026.12.0", "2026.11.1"]


def test_a_matrix_without_a_gpu_stack(docs):
    release = docs.releases()["2026.11.0"]
    del release["driver"]
    assert "GPU stack" not in docs.matrix("2026.11.0", release, {})


def test_a_platform_without_a_stack_and_one_on_its_own_archive(docs):
    release = docs.releases()["2026.11.0"]
    facts = docs.yaml.safe_load((docs.place / "releases/facts.yml").read_text())
    del release["platforms"]["rhel9"]["nvidia"]
    release["platforms"]["debian12"]["nvidia"]["driver_repository"] = None
    facts["driver_branches"]["580"]["end_of_life"] = None
    lines = docs.gpu_stack(release, facts)
    assert "support until an unknown month" in lines[1]
    assert not [line for line in lines if line.startswith("| RHEL 9")]
    assert [line for line in lines if line.startswith("| Debian 12 (bookworm) | the distribution's archive |")]


def test_the_summary_says_each_release_and_each_platform_once(docs):
    lines = docs.summary().splitlines()
    known = docs.releases()
    for release_id in docs.newest_releases(known):
        assert len([line for line in lines if line.startswith("| `%s` |" % release_id)]) == 1
        for platform in known[release_id]["platforms"].values():
            (row,) = [line for line in lines if line.startswith("| %s |" % platform["title"])]
            assert docs.PROVEN_BRIEFLY[platform["accelerators"]["cuda"]["proven"]] in row
            assert docs.STACK_PROVEN_BRIEFLY[platform["nvidia"]["proven"]] in row
    assert set(docs.PROVEN_BRIEFLY) == set(docs.PROVEN)
    assert set(docs.STACK_PROVEN_BRIEFLY) == set(docs.STACK_PROVEN)


def test_releases_that_claim_different_things_are_told_apart(docs, monkeypatch):
    known = docs.releases()
    known["2026.11.1"]["platforms"]["debian12"]["accelerators"]["cuda"]["proven"] = "rendered"
    known["2026.11.1"]["platforms"]["rhel9"]["accelerators"] = {}
    del known["2026.11.1"]["platforms"]["rhel9"]["nvidia"], known["2026.11.1"]["platforms"]["debian13"]
    known["2026.11.0"]["platforms"]["ubuntu2204"]["nvidia"]["proven"] = "run"
    monkeypatch.setattr(docs, "releases", lambda: known)
    rows = {line.split("|")[1].strip(): line for line in docs.summary().splitlines() if line}
    assert "| pins resolved only (2026.11.0); rendered only (2026.11.1) |" in rows["Debian 12 (bookworm)"]
    assert "| pins resolved only (2026.11.0); no (2026.11.1) |" in rows["Debian 13 (trixie)"]
    assert "| run on a host with a GPU (2026.11.0); rendered only (2026.11.1) |" in rows["Ubuntu 22.04 LTS"]
    assert "no (2026.11.1) |" in next(row for title, row in rows.items() if title.startswith("RHEL 9"))


def test_no_release_makes_no_claim(docs):
    assert docs.agreed({}) == "no"


def test_check_fails_until_it_was_written(docs, monkeypatch, capsys):
    assert run(docs, monkeypatch, "--check") == 1
    said = capsys.readouterr().err
    assert "-stale" in said
    assert "README.md: no markers" in said
    assert "docs/support-matrix.md: no markers" in said
    assert (docs.place / "README.md").read_text() == "# top\n"
    assert run(docs, monkeypatch, "--add") == 0
    text = (docs.place / "roles/demo/README.md").read_text()
    assert "stale" not in text
    assert text.endswith("<!-- inputs:end -->\n\nAfter.\n")
    assert "## Platforms" in (docs.place / "README.md").read_text()
    assert "Release `2026.11.0`" in (docs.place / "docs/support-matrix.md").read_text()
    assert "Release `" not in (docs.place / "README.md").read_text()
    assert run(docs, monkeypatch, "--check") == 0
