# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe itself: in this process with a torch that stands in, and in an interpreter of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_child as child
from ansible_collections.gpufleet.llm.plugins.module_utils import _cuda_parity_script as script
from parity_chain import HERE


def fake_torch(monkeypatch, **given):
    """Return a torch that does what is given; see fake_torch."""
    monkeypatch.setenv("FAKE_TORCH", json.dumps(given))
    spec = importlib.util.spec_from_file_location("fake", HERE / "fake_torch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(**changes):
    return {"library": "libnone.so.1", "torch": True, "compute": True, "size": 8, "distributions": [], **changes}


# -- the driver's library -----------------------------------------------------------------------------------------


def test_no_library_is_an_answer():
    told = script.read_driver("libnone.so.1")
    assert (told["library"], told["version"], told["init_code"]) == (None, None, None)
    assert "libnone.so.1" in told["error"]


def test_the_library_is_asked(libcuda, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "8")
    told = script.read_driver(libcuda)
    assert told == {"library": libcuda, "version": 13000, "init_code": 0, "devices": 8, "error": None}


def test_what_cuinit_says_is_kept(libcuda, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_INIT", "803")
    monkeypatch.setenv("FAKE_CUDA_VERSION", "")
    told = script.read_driver(libcuda)
    assert (told["init_code"], told["devices"], told["version"]) == (803, None, None)
    assert told["error"] == "cuDriverGetVersion answered 999"


def test_where_a_library_is_mapped(tmp_path):
    assert script.mapped(r"^libc\.so") == os.path.realpath(script.mapped(r"^libc\.so"))
    assert script.mapped("^no such library$") is None
    assert script.mapped("x", str(tmp_path / "absent")) is None


# -- torch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "attribute", "code"),
    [
        ("Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized", None, 802),
        ("CUDA error: no kernel image is available", 209, 209),
        ("CUDA error: no kernel image is available", None, None),
        ("CUDA error: no kernel image is available", "209", None),
    ],
)
def test_an_error_has_its_number_where_it_tells_one(text, attribute, code):
    exc = RuntimeError(text)
    if attribute is not None:
        exc.error_code = attribute
    assert script.error_of(exc, "here") == {"where": "here", "type": "RuntimeError", "code": code, "text": text}


def test_distributions_are_told_by_their_metadata():
    told = script.read_distributions(["pytest", "no-such-distribution"])
    assert told["pytest"] == pytest.__version__
    assert told["no-such-distribution"] is None


def test_torch_tells_its_build_where_no_gpu_is(monkeypatch):
    told = script.read_torch(fake_torch(monkeypatch))
    assert told["arch_list"] == ["sm_80", "sm_90", "compute_90"]
    assert (told["version"], told["cuda"], told["cudnn"]) == ("0.0+fake", "13.0", 91700)


def test_a_torch_for_cpus_has_no_architectures(monkeypatch):
    told = script.read_torch(fake_torch(monkeypatch, cuda=None, cudnn=None))
    assert (told["arch_list"], told["cuda"], told["cudnn"]) == ([], None, None)


def test_a_cudnn_that_does_not_load_is_told(monkeypatch):
    told = script.read_torch(fake_torch(monkeypatch, cudnn_error="cuDNN version incompatibility"))
    assert told["error"]["text"] == "cuDNN version incompatibility"


@pytest.mark.parametrize(("wrong", "count"), [(False, 0), (True, 1)])
def test_a_wrong_element_is_found(monkeypatch, wrong, count):
    told = script.multiply(fake_torch(monkeypatch, wrong=wrong), "cuda:0", 8)
    assert (told["wrong"], told["elements"]) == (count, 64)


def test_every_gpu_computes(monkeypatch, capsys):
    told = script.compute(fake_torch(monkeypatch, devices=2), 8)
    assert [(one["index"], one["result"]["wrong"], one["memory_tensors_mib"]) for one in told["devices"]] == [
        (0, 0, 21),
        (1, 0, 21),
    ]
    assert "matmul on GPU 1" in capsys.readouterr().out


def test_a_gpu_that_fails_is_told_and_the_next_is_tried(monkeypatch):
    torch = fake_torch(monkeypatch, devices=2, matmul="CUDA error: out of memory", error_code=2)
    told = script.compute(torch, 8)
    assert [(one["result"], one["error"]["code"]) for one in told["devices"]] == [(None, 2), (None, 2)]


def test_a_torch_that_cannot_start_is_told(monkeypatch):
    told = script.compute(fake_torch(monkeypatch, init="No CUDA GPUs are available"), 8)
    assert told["devices"] == []
    assert told["error"]["where"] == "torch.cuda.init"


def test_the_probe_asks_what_it_is_told_to(monkeypatch):
    torch = fake_torch(monkeypatch)
    assert script.probe(config(torch=False), lambda: torch)["torch"] is None
    assert script.probe(config(compute=False), lambda: torch)["compute"] is None
    assert script.probe(config(), lambda: fake_torch(monkeypatch, cuda=None))["compute"] is None
    assert script.probe(config(), lambda: torch)["compute"]["devices"][0]["result"]["wrong"] == 0


def test_a_torch_that_does_not_import_is_told(monkeypatch):
    told = script.probe(config(), lambda: fake_torch(monkeypatch, **{"import": "libcudart.so.13: cannot open"}))
    assert told["torch"] is None
    assert told["torch_error"]["type"] == "ImportError"


def test_torch_is_imported_by_its_name(monkeypatch):
    stand_in = object()
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    assert script.import_torch() is stand_in


# -- in an interpreter of its own ----------------------------------------------------------------------------------


def ask(interpreter, libcuda="", seconds=30.0, size=8, **given):
    env = child.environment({"FAKE_TORCH": json.dumps(given), "LD_LIBRARY_PATH": os.path.dirname(libcuda)})
    return child.ask(child.run, [interpreter, "-I", "-B"], config(library="libcuda.so.1", size=size), env, seconds)


def test_the_engines_interpreter_answers(fake_engine, libcuda):
    told = ask(fake_engine, libcuda)
    assert (told["state"], told["error"], told["stage"]) == ("done", None, "matmul on GPU 0")
    result = told["result"]
    # The very file is told, not the name that was asked for: so a compat library gives itself away.
    assert result["driver"]["library"] == libcuda
    assert result["torch"]["file"].startswith(os.path.dirname(os.path.dirname(fake_engine)))
    assert result["compute"]["devices"][0]["result"]["wrong"] == 0


def test_a_child_that_hangs_is_killed_and_says_where(fake_engine):
    began = time.monotonic()
    told = ask(fake_engine, seconds=2.0, **{"import": "hang"})
    assert time.monotonic() - began < 10
    assert (told["state"], told["result"], told["stage"]) == ("timeout", None, "import torch")
    assert told["error"] == "no answer in 2 s at the stage 'import torch'; it was killed"


def test_a_child_that_dies_is_told_by_its_signal(fake_engine):
    told = ask(fake_engine, **{"import": "die"})
    assert (told["state"], told["error"]) == ("killed", "it died of SIGSEGV at the stage 'import torch'")


def test_an_interpreter_that_is_not_there_failed():
    told = ask("/nonexistent/python3")
    assert told["state"] == "failed"
    assert "exit status 127" in told["error"]
    assert "No such file" in told["error"]


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (child.Ended(-99, "", ""), "it died of signal 99"),
        (child.Ended(3, "", ""), "exit status 3: it said nothing"),
        (child.Ended(None, script.MARK + '{"stage": "cuI', ""), "no answer in 1 s; it was killed"),
    ],
)
def test_other_ends(ended, error):
    told = child.ask(lambda argv, env, seconds: ended, ["python3"], {}, {}, 1.0)
    assert told["error"] == error


def test_a_child_that_cannot_even_be_killed_is_not_waited_for(monkeypatch):
    class Stuck:
        pid = 0

        def __init__(self, *args, **options):
            pass

        def communicate(self, timeout):
            raise child.subprocess.TimeoutExpired("python3", timeout, output=b"half a line")

    monkeypatch.setattr(child.subprocess, "Popen", Stuck)
    monkeypatch.setattr(child.os, "killpg", lambda pid, number: None)
    assert child.run(["python3"], {}, 0.1) == child.Ended(None, "half a line", "")


def test_a_loader_without_source_is_an_error(monkeypatch):
    class Loader:
        def get_source(self, name):
            return None

    monkeypatch.setattr(child.script, "__loader__", Loader())
    with pytest.raises(RuntimeError, match="tells no source"):
        child.source()


@pytest.mark.skipif(
    not os.environ.get("GPUFLEET_ENGINE_PYTHON"),
    reason="needs a real torch: GPUFLEET_ENGINE_PYTHON names the interpreter of an engine's tree",
)
def test_a_real_torch_answers():
    told = child.ask(
        child.run,
        [os.environ["GPUFLEET_ENGINE_PYTHON"], "-I", "-B"],
        config(library="libcuda.so.1", distributions=["torch"]),
        child.environment({}),
        120.0,
    )
    assert told["state"] == "done", told["error"]
    assert told["result"]["torch"]["version"] == told["result"]["distributions"]["torch"]
    # And the arithmetic that a GPU is held to is what this torch computes on the CPU.
    code = child.source().split('if __name__ == "__main__":')[0] + "\nimport torch; print(multiply(torch, 'cpu', 256))"
    ended = child.run([os.environ["GPUFLEET_ENGINE_PYTHON"], "-I", "-B", "-c", code], child.environment({}), 120.0)
    assert "'elements': 65536, 'wrong': 0" in ended.out, ended.err
