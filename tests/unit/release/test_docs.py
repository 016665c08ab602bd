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
    _release_id, release = docs.newest_release()
    for platform in release["platforms"].values():
        assert platform["title"] in matrix
    assert docs.PROVEN["run"] in matrix
    assert release["engines"]["vllm"]["cuda"]["version"] in matrix


def test_check_fails_until_it_was_written(docs, monkeypatch, capsys):
    assert run(docs, monkeypatch, "--check") == 1
    said = capsys.readouterr().err
    assert "-stale" in said
    assert "README.md: no markers" in said
    assert (docs.place / "README.md").read_text() == "# top\n"
    assert run(docs, monkeypatch, "--add") == 0
    text = (docs.place / "roles/demo/README.md").read_text()
    assert "stale" not in text
    assert text.endswith("<!-- inputs:end -->\n\nAfter.\n")
    assert "## Platforms" in (docs.place / "README.md").read_text()
    assert run(docs, monkeypatch, "--check") == 0
