#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run site.yml as AWX runs it: a private data directory laid out as AWX lays it out, driven by ansible-runner.

  tests/awx/run_site.py --host ADDRESS --ssh-key FILE --vars FILE [--name NAME] [--user root] [--port 22] [--check]

Prints one JSON object: rc, status, seconds, and stats per host (ok, changed, failures, dark, skipped, ...). Exits with
ansible's rc. --vars is a YAML or JSON file with the gpufleet_* variables of the group; more than one may be given.

What AWX does, and this does too: project/ is a checkout and the working directory; inventory/hosts is a program that
prints JSON; variables of the launch and AWX's own are in env/extravars; ANSIBLE_COLLECTIONS_PATH is
requirements_collections and then what ansible.cfg says; the key goes to an agent; control sockets live in cp/.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support import export_tree, load_yaml  # noqa: E402 - the line above makes it importable

STATS = ("ok", "changed", "failures", "dark", "skipped", "rescued", "ignored", "processed")


def inventory_program(inventory: dict[str, t.Any]) -> str:
    """Return a program that prints an inventory as JSON, as AWX writes one."""
    return "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\nprint(r'''%s''')\n" % json.dumps(inventory)


def inventory_of(name: str, host_variables: dict[str, t.Any], group_variables: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the JSON of an inventory with one host in the group gpufleet."""
    return {
        "all": {"children": ["gpufleet"]},
        "gpufleet": {"hosts": [name], "vars": group_variables},
        "_meta": {"hostvars": {name: host_variables}},
    }


def lay_out(
    place: Path,
    inventory: dict[str, t.Any],
    extra_variables: dict[str, t.Any] | None = None,
    ssh_key: Path | None = None,
) -> None:
    """Make an AWX-like private data directory in a directory that is there and empty.

    The project is a copy of the tree's own files. Foreign collections that ``requirements.yml`` names and the tree has
    at hand are put where AWX's project sync would have installed them.
    """
    for folder in ("project", "inventory", "env", "cp", "requirements_collections/ansible_collections"):
        (place / folder).mkdir(parents=True)
    export_tree(place / "project")
    for entry in load_yaml(ROOT / "requirements.yml")["collections"]:
        relative = Path(*entry["name"].split("."))
        found = ROOT / "collections/ansible_collections" / relative
        if found.is_dir():
            shutil.copytree(found, place / "requirements_collections/ansible_collections" / relative)

    hosts = place / "inventory/hosts"
    hosts.write_text(inventory_program(inventory), encoding="utf-8")
    hosts.chmod(0o700)

    collections = f"{place}/requirements_collections:./collections"
    files: dict[str, t.Any] = {
        "extravars": {
            **(extra_variables or {}),
            **{
                prefix + name: value
                for prefix in ("awx_", "tower_")
                for name, value in {"job_id": 1, "job_launch_type": "manual", "job_template_name": "site"}.items()
            },
        },
        "settings": {"job_timeout": 0, "idle_timeout": 0, "suppress_ansible_output": True, "pexpect_timeout": 5},
        "envvars": {
            "ANSIBLE_COLLECTIONS_PATH": collections,
            "ANSIBLE_ROLES_PATH": f"{place}/requirements_roles:~/.ansible/roles:/etc/ansible/roles",
            "ANSIBLE_FORCE_COLOR": "True",
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(place / "cp"),
            "ANSIBLE_UNSAFE_WRITES": "1",
            "AWX_PRIVATE_DATA_DIR": str(place),
            "JOB_ID": "1",
        },
    }
    for name, content in files.items():
        (place / "env" / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    if ssh_key is not None:
        target = place / "env/ssh_key"
        target.touch(mode=0o600)
        target.write_text(ssh_key.read_text(encoding="utf-8"), encoding="utf-8")


def run_laid_out(place: Path, command_line: str = "", **what: t.Any) -> dict[str, t.Any]:
    """Run a playbook (``playbook=``) of the project in a laid out directory; return what came of it.

    Returns:
        ``{rc, status, seconds, stats, stdout}``; ``stats`` maps a host to counts, and is empty if no play ran.
    """
    import ansible_runner

    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("ANSIBLE_")}
    (place / "env/cmdline").write_text(command_line, encoding="utf-8")
    began = time.monotonic()
    try:
        result = ansible_runner.run(private_data_dir=str(place), quiet=True, **what)
    finally:
        os.environ.update(kept)
    stats = result.stats or {}
    hosts = sorted({host for name in STATS for host in stats.get(name, {})})
    with result.stdout as shown:
        text = shown.read()
    return {
        "rc": result.rc,
        "status": result.status,
        "seconds": round(time.monotonic() - began, 1),
        "stats": {host: {name: stats.get(name, {}).get(host, 0) for name in STATS} for host in hosts},
        "stdout": re.sub(r"\x1b\[[0-9;]*m", "", text),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--host", required=True, help="address to connect to")
    parser.add_argument("--name", help="name in the inventory; default: the address")
    parser.add_argument("--user", default="root")
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--ssh-key", type=Path, required=True, help="private key")
    parser.add_argument("--ssh-args", help="more arguments for ssh, such as -o UserKnownHostsFile=...")
    parser.add_argument("--python", default="/usr/bin/python3", help="interpreter on the host")
    parser.add_argument("--vars", type=Path, action="append", default=[], help="file of group variables")
    parser.add_argument("--tags", help="only these tags")
    parser.add_argument("--check", action="store_true", help="check mode, with diff")
    parser.add_argument("--keep", type=Path, help="lay out here, and leave it; default: a temporary directory")
    parser.add_argument("--output", type=Path, help="write what ansible printed to this file")
    options = parser.parse_args()

    group_variables: dict[str, t.Any] = {}
    for path in options.vars:
        group_variables.update(load_yaml(path) or {})
    place = options.keep or Path(tempfile.mkdtemp(prefix="awx."))
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    ssh_args = options.ssh_args or f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={place}/known_hosts"
    host_variables = {
        "ansible_host": options.host,
        "ansible_user": options.user,
        "ansible_port": options.port,
        "ansible_python_interpreter": options.python,
        "ansible_ssh_common_args": ssh_args,
    }
    command_line = " ".join(
        (["--check", "--diff"] if options.check else []) + (["--tags", options.tags] if options.tags else [])
    )
    try:
        name = options.name or options.host
        lay_out(place, inventory_of(name, host_variables, group_variables), ssh_key=options.ssh_key)
        report = run_laid_out(place, command_line, playbook="site.yml")
    finally:
        if options.keep is None:
            shutil.rmtree(place, ignore_errors=True)
    shown = report.pop("stdout")
    if options.output:
        options.output.write_text(shown, encoding="utf-8")
    elif report["rc"] != 0:
        sys.stderr.write(shown)
    print(json.dumps(report))
    return int(report["rc"])


if __name__ == "__main__":
    sys.exit(main())
