# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Which package manager a host has."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _package_host as hosts
from ansible_collections.gpufleet.llm.plugins.module_utils._package_apt import Apt
from ansible_collections.gpufleet.llm.plugins.module_utils._package_dnf import Dnf
from ansible_collections.gpufleet.llm.plugins.module_utils._package_run import Backend


def backend(
    manager: str, module_streams: t.Sequence[str] = (), host: t.Optional[hosts.PackageHost] = None
) -> t.Optional[Backend]:
    """Return the package manager of a host, this one if none is given; None where it has neither apt nor dnf."""
    host = host or hosts.LocalPackageHost()
    if manager == "auto":
        programs = set(host.names("/usr/bin"))
        manager = "apt" if "apt-get" in programs else "dnf" if "dnf" in programs else ""
    if manager == "apt":
        return Apt(host)
    return Dnf(host, module_streams) if manager == "dnf" else None
