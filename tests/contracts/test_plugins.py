# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every plugin: licence header, documentation with its attributes, and syntax that the oldest target can read."""

from __future__ import annotations

import ast

import pytest
import yaml
from support import ROOT, tree_files

AUTHOR = "gpufleet.llm maintainers"
PLUGINS = [path for path in tree_files("plugins/*/*.py") if path.name != "__init__.py"]
PRIVATE = [path for path in PLUGINS if path.parts[1] in ("module_utils", "plugin_utils")]
DOCUMENTED = [
    path for path in PLUGINS if path.parts[1] in ("modules", "lookup", "filter", "test", "inventory", "callback")
]
ON_TARGETS = [path for path in PLUGINS if path.parts[1] in ("modules", "module_utils")] + tree_files(
    "roles/*/files/*.py", "roles/*/files/*/*.py"
)


def assigned(path):
    """Return the string constants a plugin assigns at its top: DOCUMENTATION, EXAMPLES, RETURN."""
    found = {}
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found.update({target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)})
    return found


def documentation(path):
    constants = assigned(path)
    if "DOCUMENTATION" in constants:
        return yaml.safe_load(constants["DOCUMENTATION"])
    sidecar = (ROOT / path).with_suffix(".yml")
    assert sidecar.is_file(), "%s has no DOCUMENTATION" % path
    return yaml.safe_load(sidecar.read_text(encoding="utf-8"))["DOCUMENTATION"]


def test_there_are_plugins():
    assert DOCUMENTED
    assert PRIVATE


@pytest.mark.parametrize("path", PLUGINS + tree_files("roles/*/files/*.py", "roles/*/files/*/*.py"), ids=str)
def test_the_header(path):
    head = (ROOT / path).read_text(encoding="utf-8").splitlines()[:6]
    assert any("GNU General Public License v3.0+" in line for line in head)
    assert any(line == "# SPDX-License-Identifier: GPL-3.0-or-later" for line in head)
    assert any(line == "# Copyright (c) 2026 %s" % AUTHOR for line in head)
    if path.parts[:2] == ("plugins", "modules"):
        assert head[0] == "#!/usr/bin/python"


@pytest.mark.parametrize("path", PRIVATE, ids=str)
def test_module_utils_are_private(path):
    assert path.name.startswith("_")


@pytest.mark.parametrize("path", PLUGINS + tree_files("roles/*/files/*.py", "roles/*/files/*/*.py"), ids=str)
def test_annotations_are_not_evaluated(path):
    assert "from __future__ import annotations" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ON_TARGETS, ids=str)
def test_what_runs_on_hosts_is_python_3_9(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"), feature_version=(3, 9))
    assert not [node for node in ast.walk(tree) if isinstance(node, getattr(ast, "Match", ()))]


@pytest.mark.parametrize("path", DOCUMENTED, ids=str)
def test_the_documentation(path):
    doc = documentation(path)
    assert doc.get("module", doc.get("name")) in (path.stem, "gpufleet.llm." + path.stem)
    assert doc["short_description"]
    assert doc["author"] == [AUTHOR + " (!UNKNOWN)"]
    assert doc["version_added"]
    constants = assigned(path)
    if path.parts[1] == "modules":
        for mode in ("check_mode", "diff_mode"):
            assert doc["attributes"][mode]["support"] in ("full", "partial", "none")
        assert (
            "supports_check_mode=True" in (ROOT / path).read_text(encoding="utf-8")
            or (ROOT / "plugins/action" / path.name).is_file()
        )
        assert yaml.safe_load(constants["RETURN"])
    if "EXAMPLES" in constants:
        assert "gpufleet.llm.%s" % path.stem in constants["EXAMPLES"], "an example without the plugin's full name"


@pytest.mark.parametrize("path", tree_files("plugins/action/*.py"), ids=str)
def test_an_action_has_a_documented_module(path):
    assert (ROOT / "plugins/modules" / path.name).is_file()
