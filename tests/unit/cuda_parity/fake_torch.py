# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A torch that has GPUs wherever FAKE_TORCH says so, and fails as it says: JSON, see `DEFAULT`.

The arithmetic is real, on lists: a product that is right is right, and ``wrong`` changes one element of it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from types import SimpleNamespace

DEFAULT = {
    "version": "0.0+fake",
    "cuda": "13.0",
    "arch_flags": "sm_80 sm_90 compute_90",
    "cudnn": 91700,
    "devices": 1,
    "import": "",  # text of an ImportError, or hang, or die
    "cudnn_error": "",
    "init": "",  # text of a RuntimeError at torch.cuda.init
    "matmul": "",  # text of an error at the first copy to a device
    "error_code": None,  # what torch.AcceleratorError carries beside its text
    "wrong": False,
}
GIVEN = {**DEFAULT, **json.loads(os.environ.get("FAKE_TORCH", "{}"))}

if GIVEN["import"] == "hang":
    time.sleep(600)
elif GIVEN["import"] == "die":
    os.kill(os.getpid(), signal.SIGSEGV)
elif GIVEN["import"]:
    raise ImportError(GIVEN["import"])


class AcceleratorError(RuntimeError):
    """As torch's own: the number beside the text, where it has one."""

    def __init__(self, text, code):
        super().__init__(text)
        if code is not None:
            self.error_code = code


class Tensor:
    """Numbers in rows, or in one."""

    def __init__(self, rows, device="cpu"):
        self.rows, self.device = rows, device

    def each(self, function):
        return Tensor([[function(value) for value in row] for row in self.rows], self.device)

    def __mul__(self, factor):
        return self.each(lambda value: value * factor)

    def __mod__(self, divisor):
        return self.each(lambda value: value % divisor)

    def __add__(self, number):
        return self.each(lambda value: value + number)

    def __matmul__(self, other):
        columns = list(zip(*other.rows))
        rows = [[sum(a * b for a, b in zip(row, column)) for column in columns] for row in self.rows]
        if self.device != "cpu" and GIVEN["wrong"]:
            rows[0][0] += 1
        return Tensor(rows, self.device)

    def __ne__(self, other):
        return Tensor([[a != b for a, b in zip(*rows)] for rows in zip(self.rows, other.rows)])

    def reshape(self, height, width):
        return Tensor([self.rows[0][n * width : (n + 1) * width] for n in range(height)])

    def sum(self):
        return sum(sum(row) for row in self.rows)

    def to(self, where):
        if not isinstance(where, str) or where == self.device:
            return self
        if where != "cpu" and GIVEN["matmul"]:
            raise AcceleratorError(GIVEN["matmul"], GIVEN["error_code"])
        return Tensor(self.rows, where)


def arange(count, dtype):
    return Tensor([list(range(count))])


def cudnn_version():
    if GIVEN["cudnn_error"]:
        raise RuntimeError(GIVEN["cudnn_error"])
    return GIVEN["cudnn"]


def init():
    if GIVEN["init"]:
        raise RuntimeError(GIVEN["init"])


__version__ = GIVEN["version"]
int64 = SimpleNamespace(name="int64")
float32 = SimpleNamespace(name="float32")
version = SimpleNamespace(cuda=GIVEN["cuda"], hip=None)
_C = SimpleNamespace(**({"_cuda_getArchFlags": lambda: GIVEN["arch_flags"]} if GIVEN["cuda"] else {}))
backends = SimpleNamespace(cudnn=SimpleNamespace(version=cudnn_version))
cuda = SimpleNamespace(
    init=init,
    device_count=lambda: GIVEN["devices"],
    get_device_properties=lambda index: SimpleNamespace(name="Fake GPU", uuid="0-%d" % index, major=9, minor=0),
    synchronize=lambda index: None,
    mem_get_info=lambda index: (70000 << 20, 80000 << 20),
    max_memory_reserved=lambda index: (20 << 20) + 1,
)
