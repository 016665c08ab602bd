# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a host: recorded answers of its files and programs."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_child as child
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_read as reading
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_script as script
from parity_chain import KERNEL, OPTIONS, gpu

V = "570.10.02"
LIB = "/usr/lib/x86_64-linux-gnu"
LDCONFIG = """\
5 libs found in cache `/etc/ld.so.cache'
\tlibnvidia-ml.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvidia-ml.so.1
\tlibcudnn.so.9 (libc6,x86-64) => /lib/x86_64-linux-gnu/libcudnn.so.9
\tlibcuda.so.1 (libc6) => /lib/i386-linux-gnu/libcuda.so.1
\tlibcuda.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libcuda.so.1
\tlibc.so.6 (libc6,x86-64, OS ABI: Linux 3.2.0) => /lib/x86_64-linux-gnu/libc.so.6
"""


class Recorded:
    """A ParityHost that answers from tables."""

    def __init__(self, files=None, directories=None, commands=None, real=None, children=None):
        self.files = files or {}
        self.directories = directories or {}
        self.commands = commands or {}
        self.reals = real or {}
        self.children = children or []
        self.asked = []

    def run(self, argv):
        for length in range(len(argv), 0, -1):
            if tuple(argv[:length]) in self.commands:
                return self.commands[tuple(argv[:length])]
        return 127, "", "%s: not found" % argv[0]

    def read(self, path):
        return self.files.get(path)

    def names(self, path):
        return self.directories.get(path, [])

    def link(self, path):
        return ""

    def real(self, path):
        return self.reals.get(path, path)

    def child(self, argv, environment, timeout_seconds):
        self.asked.append((list(argv), dict(environment), timeout_seconds))
        return self.children.pop(0)

    def machine(self):
        return {"kernel": KERNEL, "architecture": "x86_64", "python": "3.11.2", "glibc": "2.36"}

    def usage(self, path):
        raise NotImplementedError

    def clock(self):
        raise NotImplementedError


def answer(**result):
    """Return how a child ends that has this to say."""
    return child.Ended(0, "torch says hello\n%s%s\n" % (script.MARK, json.dumps({"result": result})), "")


def test_the_libraries_of_64_bits_in_their_order():
    found = reading.parse_ldconfig(LDCONFIG)
    assert [name for name, _path in found] == ["libnvidia-ml.so.1", "libcudnn.so.9", "libcuda.so.1", "libc.so.6"]
    assert found[2][1] == "/lib/x86_64-linux-gnu/libcuda.so.1"


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/usr/lib/libcuda.so." + V, V),
        ("/usr/lib/libcuda.so.1", None),
        ("/usr/lib/other.so." + V, None),
    ],
)
def test_a_library_tells_its_version_by_its_name(path, wanted):
    assert reading.library_version(path, "libcuda.so.1") == wanted


def test_libraries_with_their_packages_on_debian():
    real = LIB + "/libcuda.so." + V
    host = Recorded(
        real={"/lib/x86_64-linux-gnu/libcuda.so.1": real},
        commands={
            ("dpkg", "-S", real): (1, "", "no path found"),
            ("dpkg", "-S", real[4:]): (0, "diversion by glx from: x\nlibcuda1:amd64, other: %s\n" % real[4:], ""),
            ("dpkg-query", "-W", "-f", "${Version}", "libcuda1:amd64"): (0, V + "-1~deb12u1", ""),
        },
    )
    found = reading.read_libraries(host, reading.parse_ldconfig(LDCONFIG))
    package = {"name": "libcuda1", "version": V + "-1~deb12u1"}
    assert found["libcuda.so.1"] == {"path": real, "version": V, "package": package}
    assert found["libnvidia-ml.so.1"]["package"] is None
    assert found["libnvidia-ptxjitcompiler.so.1"] is None


def test_the_owner_of_a_file_on_rhel():
    host = Recorded(commands={("rpm", "-qf"): (0, "nvidia-driver-cuda-libs\t%s-1.el9\n" % V, "")})
    owner = {"name": "nvidia-driver-cuda-libs", "version": V + "-1.el9"}
    assert reading.read_owner(host, "/usr/lib64/libcuda.so." + V) == owner
    host = Recorded(commands={("rpm", "-qf"): (1, "file /x is not owned by any package\n", "")})
    assert reading.read_owner(host, "/x") is None


def test_forward_compatibility_libraries():
    compat = "/usr/local/cuda-13.0/compat/libcuda.so." + V
    odd = "/opt/compat/libcuda.so." + V
    host = Recorded(
        directories={
            "/usr/local": ["bin", "cuda", "cuda-13.0"],
            "/usr/local/cuda/compat": ["libcuda.so." + V],
            "/usr/local/cuda-13.0/compat": ["libcuda.so", "libcuda.so." + V, "libnvidia-nvvm.so.4"],
        },
        real={
            "/usr/local/cuda/compat/libcuda.so." + V: compat,
            "/usr/local/cuda-13.0/compat/libcuda.so": compat,
            "/lib/x86_64-linux-gnu/libcuda.so.1": compat,
            "/opt/compat/libcuda.so.1": odd,
        },
    )
    libraries = [*reading.parse_ldconfig(LDCONFIG), ("libcuda.so.1", "/opt/compat/libcuda.so.1")]
    assert reading.read_compat(host, libraries) == [
        {"path": odd, "version": V, "cuda": None, "default": False},
        {"path": compat, "version": V, "cuda": "13.0", "default": True},
    ]
    # The driver's own library is looked for behind them.
    assert reading.read_libraries(host, libraries)["libcuda.so.1"] is None
    host.directories = {"/usr/local": ["cuda"], "/usr/local/cuda/compat": ["libcuda.so." + V]}
    host.reals = {}
    assert reading.read_compat(host, [])[0]["cuda"] is None


def test_toolkits_are_those_with_a_compiler():
    host = Recorded(
        directories={
            "/usr/local": ["cuda", "cuda-12", "cuda-12.8", "cuda-13.0", "cuda-13.1"],
            "/usr/local/cuda-12.8/bin": ["nvcc"],
            "/usr/local/cuda-13.0/bin": ["nvcc", "ptxas"],
        },
        files={"/usr/local/cuda-13.0/version.json": '{"cuda" : {"name" : "CUDA SDK", "version" : "13.0.2"}}'},
        real={"/usr/local/cuda": "/usr/local/cuda-13.0"},
    )
    assert reading.read_toolkits(host) == {
        "installed": [
            {"path": "/usr/local/cuda-12.8", "version": "12.8"},
            {"path": "/usr/local/cuda-13.0", "version": "13.0.2"},
        ],
        "default": "/usr/local/cuda-13.0",
    }
    assert reading.read_toolkits(Recorded()) == {"installed": [], "default": None}


def test_the_hosts_own_cudnn():
    real = LIB + "/libcudnn.so.9.17.0"
    host = Recorded(real={"/lib/x86_64-linux-gnu/libcudnn.so.9": real})
    assert reading.read_host_cudnn(host, reading.parse_ldconfig(LDCONFIG)) == [{"path": real, "version": "9.17.0"}]


SHOWN = "Id=nvidia-fabricmanager.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n"


def test_the_fabric_manager_and_its_unit():
    host = Recorded(
        directories={"/usr/bin": ["nv-fabricmanager"]},
        commands={
            ("systemctl", "show"): (0, SHOWN, ""),
            ("dpkg", "-S"): (0, "nvidia-fabricmanager: /usr/bin/nv-fabricmanager\n", ""),
            ("dpkg-query",): (0, V + "-1", ""),
        },
    )
    assert reading.read_fabric_manager(host) == {
        "package": {"name": "nvidia-fabricmanager", "version": V + "-1"},
        "unit": {"load_state": "loaded", "active_state": "active", "unit_file_state": "enabled"},
    }
    assert reading.read_fabric_manager(Recorded()) == {"package": None, "unit": None}


def test_cdi_specifications_of_gpus():
    text = "kind: nvidia.com/gpu\n- hostPath: /usr/lib/libcuda.so.%s\n- hostPath: /usr/lib/libnvidia-ml.so.%s\n" % (
        V,
        V,
    )
    host = Recorded(
        directories={"/etc/cdi": ["nvidia.yaml", "notes.txt", "other.json"], "/run/cdi": ["gone.yaml"]},
        files={"/etc/cdi/nvidia.yaml": text, "/etc/cdi/other.json": "kind: vendor.com/nic", "/etc/cdi/notes.txt": text},
    )
    assert reading.read_cdi(host) == [{"path": "/etc/cdi/nvidia.yaml", "versions": [V]}]


def test_nvswitches_on_the_pci_bus():
    base = "/sys/bus/pci/devices/"
    host = Recorded(
        directories={base[:-1]: ["0000:05:00.0", "0000:06:00.0", "0000:07:00.0"]},
        files={
            base + "0000:05:00.0/vendor": "0x10de\n",
            base + "0000:05:00.0/class": "0x068000\n",
            base + "0000:06:00.0/vendor": "0x10de\n",
            base + "0000:06:00.0/class": "0x030200\n",
            base + "0000:07:00.0/vendor": "0x8086\n",
            base + "0000:07:00.0/class": "0x068000\n",
        },
    )
    assert reading.read_switches(host) == ["0000:05:00.0"]


def test_the_driver_api_is_asked_in_a_child():
    host = Recorded(children=[answer(driver={"library": "/x", "version": 13000, "init_code": 0, "devices": 2})])
    told = reading.read_driver_api(host, 5.0)
    assert told == {"library": "/x", "version": 13000, "init_code": 0, "devices": 2, "error": None, "state": "done"}
    assert host.asked[0][2] == 5.0
    host = Recorded(children=[child.Ended(None, script.MARK + '{"stage": "cuInit"}\n', "")])
    told = reading.read_driver_api(host, 5.0)
    assert (told["state"], told["error"]) == ("timeout", "no answer in 5 s at the stage 'cuInit'; it was killed")


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (gpu(0), None),
        (gpu(0, uuid=None), "it told no UUID"),
        (gpu(0, error="GPU is lost"), "GPU is lost"),
        (gpu(0, mig={"current": True}), "MIG is on"),
        (gpu(0, memory_mib={"free": None}), "isn't known"),
        (gpu(0, memory_mib={"free": 700}), "700 MiB are free, and 2048 MiB are wanted"),
    ],
)
def test_which_gpus_may_be_made_to_compute(one, reason):
    uuids, skipped = reading.choose_gpus({"gpus": [one]}, 2048)
    if reason is None:
        assert (uuids, skipped) == ([one["uuid"]], [])
    else:
        assert uuids == []
        assert reason in skipped[0]["reason"]


def engine_host(*children):
    return Recorded(directories={os.path.dirname(OPTIONS["interpreter"]): ["python3"]}, children=list(children))


def test_without_an_interpreter_there_is_no_engine():
    assert reading.read_engine(Recorded(), {"gpus": []}, OPTIONS) is None


def test_the_engine_is_asked_with_the_gpus_that_have_room():
    host = engine_host(answer(python="3.12.1", torch={"cuda": "13.0"}, torch_error=None, compute={"devices": []}))
    gpus = {"gpus": [gpu(0), gpu(1, memory_mib={"free": 10})]}
    options = dict(OPTIONS, environment={"LD_LIBRARY_PATH": "/opt/lib"})
    told = reading.read_engine(host, gpus, options)
    argv, environment, seconds = host.asked[0]
    assert argv[:4] == [OPTIONS["interpreter"], "-I", "-B", "-c"]
    assert json.loads(argv[-1])["compute"] is True
    assert "vllm" in json.loads(argv[-1])["distributions"]
    assert environment["CUDA_VISIBLE_DEVICES"] == gpus["gpus"][0]["uuid"]
    assert "LD_PRELOAD" not in environment
    assert seconds == OPTIONS["timeout_seconds"]
    assert (told["state"], told["python"], told["library_path"]) == ("done", "3.12.1", "/opt/lib")
    assert [one["index"] for one in told["skipped"]] == [1]


@pytest.mark.parametrize("compute", [True, False])
def test_no_gpu_computes_where_none_has_room_or_nobody_asked(compute):
    host = engine_host(answer(python="3.12.1"))
    gpus = {"gpus": [gpu(0, memory_mib={"free": 10})]}
    told = reading.read_engine(host, gpus, dict(OPTIONS, compute=compute))
    argv, environment, _seconds = host.asked[0]
    assert json.loads(argv[-1])["compute"] is False
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert len(told["skipped"]) == int(compute)


def test_the_whole_chain_of_a_bare_host():
    host = Recorded(
        commands={("dpkg-query",): (0, "", ""), ("/sbin/ldconfig",): (0, "", "")},
        children=[answer(driver={"error": "libcuda.so.1: cannot open"})],
    )
    nothing = {"driver": {"state": "library_not_found"}, "gpus": []}
    told = reading.read_chain(host, lambda: nothing, dict(OPTIONS, interpreter=""))
    assert told["engine"] is None
    assert told["pci"] == {"gpus": [], "switches": []}
    assert told["module"]["loaded"] is False
    assert told["kernel"]["next_boot_source"] == "running"
    assert told["libraries"] == dict.fromkeys(reading.LIBRARIES)
    assert (told["glibc"], told["architecture"], told["gpu"]) == ("2.36", "x86_64", nothing)


def test_this_very_host_can_be_read():
    host = reading.LocalParityHost()
    nothing = {"driver": {"state": "library_not_found"}, "gpus": []}
    told = reading.read_chain(host, lambda: nothing, dict(OPTIONS, interpreter="/nonexistent/python3"))
    assert told["kernel"]["running"] == os.uname().release
    assert told["driver_api"]["state"] == "done"
    assert told["engine"] is None
