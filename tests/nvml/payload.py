# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module with its arguments as the one file that ansible sends to a host and runs there."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

from support import ROOT

INTERNAL = {
    "_ansible_check_mode": False,
    "_ansible_debug": False,
    "_ansible_diff": False,
    "_ansible_no_log": False,
    "_ansible_verbosity": 0,
    "_ansible_version": "2.19.0",
    "_ansible_socket": None,
    "_ansible_syslog_facility": "LOG_USER",
    "_ansible_selinux_special_fs": [],
    "_ansible_shell_executable": "/bin/sh",
    "_ansible_keep_remote_files": False,
    "_ansible_remote_tmp": "/tmp",
    "_ansible_tmpdir": None,
    "_ansible_tracebacks_for": [],
    "_ansible_ignore_unknown_opts": False,
    "_ansible_target_log_info": None,
}


def write(path: Path, module: str, source: Path | None = None, **arguments: t.Any) -> Path:
    """Write a module of the collection (or the one at source, as if it were of it) with its arguments to a file."""
    from ansible.executor import module_common
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar

    built = module_common.modify_module(
        module_name="ansible_collections.gpufleet.llm.plugins.modules.%s" % module,
        module_path=str(source or ROOT / "plugins" / "modules" / ("%s.py" % module)),
        module_args={**INTERNAL, **arguments, "_ansible_module_name": "gpufleet.llm.%s" % module},
        templar=Templar(loader=DataLoader()),
        module_compression="ZIP_DEFLATED",
        task_vars={"ansible_python_interpreter": sys.executable},
    )
    path.write_bytes(built.b_module_data)
    return path


def run(path: Path, env: t.Mapping[str, str]) -> dict[str, t.Any]:
    """Run such a file as ansible does; return what the module says."""
    done = subprocess.run([sys.executable, str(path)], env=dict(env), capture_output=True, text=True, check=False)
    try:
        return t.cast(t.Dict[str, t.Any], json.loads(done.stdout))
    except ValueError:
        raise RuntimeError("no answer: %s%s" % (done.stdout, done.stderr)) from None
