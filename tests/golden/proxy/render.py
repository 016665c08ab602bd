# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the proxy's files as the role does, without a host: ``python render.py DIRECTORY`` writes them there."""

from __future__ import annotations

import pathlib
import typing as t

import jinja2
import yaml
from ansible.plugins.filter.core import to_nice_json
from ansible_collections.gpufleet.llm.plugins.module_utils import _proxy_plan

ROLE = pathlib.Path(__file__).resolve().parents[3] / "roles/llm_proxy"
MODELS = [
    {"name": "smollm2", "slot": "a", "engine": "vllm", "port": 8443, "context_length": 2048},
    {
        "name": "tiny.1",
        "slot": "b",
        "engine": "vllm",
        "port": 9443,
        "authorization_include": "",
        "fallback_socket": "/run/gpufleet/tiny.1-fallback/engine.sock",
    },
]
PKI = {
    "path": "/control/pki",
    "files": {name: "/control/pki/%s" % name for name, _mode in _proxy_plan.TLS_FILES},
    "clients": {"demo": ["a" * 64, "b" * 64], "gpu-validate": ["c" * 64]},
}

ADMIN_PORT = 9180
NOT_LIMITS = ("llm_proxy_jwt_skew_seconds",)


def defaults() -> t.Dict[str, t.Any]:
    """Return the role's defaults that aren't templates themselves."""
    return t.cast(t.Dict[str, t.Any], yaml.safe_load((ROLE / "defaults/main.yml").read_text()))


def inputs(**changes: t.Any) -> t.Dict[str, t.Any]:
    """Return the inputs of the plan for two models and one client, with changes."""
    role = defaults()
    given: t.Dict[str, t.Any] = {
        "models": MODELS,
        "clients": [{"name": "demo"}],
        "validate_client": role["llm_proxy_validate_client"],
        "endpoints": role["llm_proxy_endpoints"],
        "authorization_include": role["llm_proxy_authorization_include"],
        "server_names": ["llm1", "192.0.2.10", "localhost", "127.0.0.1"],
        "listen_addresses": role["llm_proxy_listen_addresses"],
        "pki": PKI,
        "tiers": role["llm_proxy_tiers"],
        "admin_clients": [role["llm_proxy_validate_client"]],
        "admin_port": ADMIN_PORT,
        "limits": {name: value for name, value in role.items() if isinstance(value, int) and name not in NOT_LIMITS},
        "check_mode": False,
    }
    return dict(given, **changes)


def render(given: t.Mapping[str, t.Any], platform: str = "debian12", **changes: t.Any) -> t.Dict[str, str]:
    """Return the rendered templates by destination."""
    role = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    plan = _proxy_plan.proxy_plan(given)
    assert not plan["refusal"], plan["refusal"]
    unknown = role["__llm_proxy_tls_unknown_groups"].get(platform, [])
    variables = {
        **role,
        **defaults(),
        "__llm_proxy_plan": plan,
        "llm_proxy_admin_port": ADMIN_PORT,
        "llm_proxy_listen_addresses": given["listen_addresses"],
        "__llm_proxy_groups": [group for group in role["__llm_proxy_tls_groups"] if group not in unknown],
        **changes,
    }
    variables["__llm_proxy_tls"] = role["__llm_proxy_tls_profiles"][variables["llm_proxy_tls_profile"]]
    loader = jinja2.FileSystemLoader(str(ROLE / "templates"))
    environment = jinja2.Environment(  # configuration files, not HTML
        loader=loader,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["to_nice_json"] = to_nice_json
    tree = role["__llm_proxy_dir"]
    rendered: t.Dict[str, str] = {}
    for entry in role["__llm_proxy_static_files"] + plan["files"]:
        dest = entry["dest"].replace("{{ __llm_proxy_dir }}", tree)
        dest = dest.replace("{{ __llm_proxy_unit_path }}", role["__llm_proxy_unit_path"])
        if "template" in entry:
            rendered[dest] = environment.get_template(entry["template"]).render(variables, **entry.get("vars", {}))
        elif not entry["src"].startswith("/"):
            rendered[dest] = (ROLE / "files" / entry["src"]).read_text()
    return rendered
