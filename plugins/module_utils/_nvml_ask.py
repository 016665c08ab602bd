# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Ask nvidia-ml-py for one thing at a time: what can't be answered is None, a GPU that is gone ends the reading."""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._gpu_info_record import Record

# nvmlReturn_t: this GPU or this driver has no such thing, or the caller may not see it. The field is null.
NOT_THERE = frozenset((2, 3, 4, 6, 7, 21, 22, 27))
# The function or this version of its structure isn't in this library: an older one may be.
TRY_OLDER = frozenset((13, 25, 26))
# The GPU is gone: every further call would wait for it in vain.
GONE = frozenset((15, 16))


def as_text(value: t.Any) -> str:
    """Return NVML's text: some versions of nvidia-ml-py give bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def name_of(nvml: t.Any, prefix: str, value: t.Optional[int]) -> t.Optional[str]:
    """Return the name that nvidia-ml-py has for a value: ``hopper`` for NVML_DEVICE_ARCH_HOPPER."""
    if value is None:
        return None
    return names_by_value(nvml, prefix).get(value) or "unknown (%d)" % value


@functools.lru_cache(maxsize=None)
def names_by_value(nvml: t.Any, prefix: str) -> t.Dict[t.Any, str]:
    """Return the names of nvidia-ml-py's constants that begin so, without that, in lower case, by their values."""
    return {value: name[len(prefix) :].lower() for name, value in vars(nvml).items() if name.startswith(prefix)}


class GoneError(Exception):
    """The GPU doesn't answer any more."""


class Asker:
    """Asks, and turns what can't be answered into None."""

    def __init__(self, nvml: t.Any, record: Record, state_of: t.Callable[[int], str]) -> None:
        self.nvml = nvml
        self.record = record
        self.state_of = state_of

    def fail(self, code: int, text: str) -> None:
        """Remember the first failure that isn't about one field only."""
        if self.record["error"] is None:
            self.record["state"] = self.state_of(code)
            self.record["error"] = text

    def first(self, *calls: t.Callable[[], t.Any]) -> t.Any:
        """Return the answer of the first call that this library and this nvidia-ml-py have, newest first."""
        for call in calls:
            try:
                return call()
            except AttributeError:
                continue  # an nvidia-ml-py of before the function
            except self.nvml.NVMLError as exc:
                if exc.value in TRY_OLDER:
                    continue
                if exc.value in GONE:
                    self.fail(exc.value, str(exc))
                    raise GoneError() from None
                if exc.value not in NOT_THERE:
                    self.fail(exc.value, str(exc))
                return None
        return None

    def get(self, functions: t.Union[str, t.Sequence[str]], *arguments: t.Any) -> t.Any:
        """Return what a function of nvidia-ml-py says, or the first that is there of several, newest first."""
        names = (functions,) if isinstance(functions, str) else functions
        return self.first(*(lambda name=name: getattr(self.nvml, name)(*arguments) for name in names))

    def switch(self, function: str, *arguments: t.Any) -> t.Optional[bool]:
        """Return a function's state as a boolean."""
        value = self.get(function, *arguments)
        return None if value is None else bool(value)

    def text(self, function: str, *arguments: t.Any) -> t.Optional[str]:
        """Return a function's text."""
        value = self.get(function, *arguments)
        return None if value is None else as_text(value)

    def watts(self, function: str, handle: t.Any) -> t.Optional[float]:
        """Return a function's milliwatts in watts."""
        value = self.get(function, handle)
        return None if value is None else value / 1000
