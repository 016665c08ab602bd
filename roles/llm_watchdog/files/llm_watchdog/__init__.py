# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The watchdog of the engines: `python3 -m llm_watchdog CONFIG`. Standard library of Python 3.9 only.

Managed by Ansible (gpufleet.llm.llm_watchdog).
"""

from __future__ import annotations
