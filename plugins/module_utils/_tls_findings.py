# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Turns the ends of a host's certificates and revocation lists into findings for the receipt."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _tls_expiry
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding


def decide_ends(
    ends: t.Iterable[_tls_expiry.End], now: float, warning_days: t.Mapping[str, float]
) -> t.Iterator[Finding]:
    """Give a finding for each end: it must be far enough; one that is near warns, one that has come refuses.

    Args:
        now: seconds since the epoch.
        warning_days: days ahead, by kind, from which on an end is near.
    """
    for end in ends:
        near = _tls_expiry.is_near(end, now, warning_days)
        over = end.not_after is None or end.not_after <= now
        found = (
            end.problem
            if end.not_after is None
            else "%s, %.1f days left, until %s"
            % (end.name, (end.not_after - now) / _tls_expiry.DAY_SECONDS, _tls_expiry.iso(end.not_after))
        )
        yield finding(
            "host.tls.%s" % end.kind,
            not near,
            expected="at least %g days left" % warning_days[end.kind],
            found=found,
            detail="%s." % end.path,
            remedy=_tls_expiry.REMEDIES[end.kind],
            severity="error" if over else "warning",
        )
