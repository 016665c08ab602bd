# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""host_state and finding: recorded answers of dpkg, rpm and systemctl."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _finding, _host_state, _runner


class Recorded:
    """A Runner that answers from a table {program: (rc, out, err)}."""

    def __init__(self, answers):
        self.answers = answers

    def run(self, argv):
        return self.answers.get(argv[0], (127, "", "%s: not found" % argv[0]))

    def read(self, path):
        return None


def test_dpkg_tells_installed_removed_and_unknown_apart():
    out = "nginx\t1.22.1-9+deb12u11\tinstalled\nold\t1.0\tconfig-files\n"
    runner = Recorded({"dpkg-query": (1, out, "no packages found matching nosuch")})
    assert _host_state.read_packages(runner, ["nginx", "old", "nosuch"]) == {
        "nginx": "1.22.1-9+deb12u11",
        "old": None,
        "nosuch": None,
    }


def test_rpm_is_asked_where_dpkg_is_absent():
    out = "nginx\t1.26.3-2.el9\npackage nosuch is not installed\n"
    runner = Recorded({"rpm": (1, out, "")})
    assert _host_state.read_packages(runner, ["nginx", "nosuch"]) == {"nginx": "1.26.3-2.el9", "nosuch": None}


def test_no_package_manager_is_an_error():
    with pytest.raises(_host_state.HostStateError, match="neither dpkg-query nor rpm"):
        _host_state.read_packages(Recorded({}), ["nginx"])


def test_units_keep_the_order_in_which_they_were_asked():
    out = (
        "Id=a.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=42\n"
        "InvocationID=abc\nNeedDaemonReload=yes\n\n"
        "Id=b.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\nMainPID=0\n"
        "NeedDaemonReload=no\n"
    )
    units = _host_state.read_units(Recorded({"systemctl": (0, out, "")}), ["a.service", "b.service"])
    assert units["a.service"]["main_pid"] == 42
    assert units["a.service"]["need_daemon_reload"] is True
    assert units["b.service"]["load_state"] == "not-found"
    assert units["b.service"]["invocation_id"] == ""


def test_fewer_units_told_than_asked_is_an_error():
    with pytest.raises(_host_state.HostStateError, match="told 1 units, 2 were asked"):
        _host_state.read_units(Recorded({"systemctl": (0, "Id=a.service\n", "")}), ["a.service", "b.service"])


def test_every_refusal_is_in_one_message_and_warnings_are_not():
    findings = [
        _finding.finding("ram.total_bytes", False, expected=8, found=4, remedy="Add memory."),
        _finding.finding(
            "time.synchronised", False, expected=True, found=False, remedy="Start it.", severity="warning"
        ),
        _finding.finding("port.free", False, expected="free", found="taken by sshd", remedy="Choose another."),
        _finding.finding("os.platform", True, expected="debian12", found="debian12"),
    ]
    message = _finding.refusal_message(findings, "host lab1")
    assert message.splitlines()[0] == "host lab1 refused, 2 reasons, nothing was changed:"
    assert "1. ram.total_bytes: found 4, expected 8. Remedy: Add memory." in message
    assert "time.synchronised" not in message
    assert [f["check"] for f in _finding.warnings(findings)] == ["time.synchronised"]
    assert _finding.refusal_message([findings[1], findings[3]], "host") == ""


def test_a_failed_check_without_a_remedy_is_a_defect_of_ours():
    with pytest.raises(ValueError, match="without a remedy"):
        _finding.finding("x.y", False, expected=1, found=2)
    with pytest.raises(ValueError, match="severity"):
        _finding.finding("x.y", True, expected=1, found=1, severity="fatal")


def test_nothing_asked_is_nothing_read_and_a_line_that_is_no_answer_is_passed_over():
    assert _host_state.read_packages(Recorded({}), []) == {}
    assert _host_state.read_units(Recorded({}), []) == {}
    runner = Recorded({"dpkg-query": (0, "warning\nother\t1.0\tinstalled\nnginx\t1.0\tinstalled\n", "")})
    assert _host_state.read_packages(runner, ["nginx"]) == {"nginx": "1.0"}


def test_a_finding_is_refused_with_its_remedy_alone():
    bad = _finding.finding("a.check", False, expected=1, found=2, remedy="Do it.")
    text = _finding.refusal_message([bad, _finding.finding("b.check", True, expected=1, found=1)], "the role")
    assert "1. a.check: found 2, expected 1. Remedy: Do it." in text
    assert "b.check" not in text


def test_a_command_that_hangs_is_given_up():
    status, out, err = _runner.LocalRunner(timeout_seconds=0.2).run(["sleep", "5"])
    assert (status, out, err) == (124, "", "sleep gave no answer in 0.2 s")
    assert _runner.LocalRunner().run(["no-such-command"])[0] == 127
    assert _runner.LocalRunner().read("/no/such/file") is None
