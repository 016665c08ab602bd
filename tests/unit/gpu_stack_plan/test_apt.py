# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preferences file before the real apt: what it would install, keep and go back to.

apt runs against directories of its own below the test's, with a repository that is a list of packages; nothing is
fetched or installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan as planning
from gpu_stack_hosts import host

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="the control node has no apt")

OLD, PINNED, NEW = "580.159.04-1", "580.178.04-1", "595.58.03-1"
FAMILY = {
    "nvidia-driver-cuda": "libcuda1 (>= {upstream}), libnvidia-ml1 (>= {upstream}), nvidia-smi (= {version})",
    "nvidia-kernel-open-dkms": "nvidia-modprobe (>= {upstream})",
    "nvidia-kernel-dkms": "nvidia-modprobe (>= {upstream})",
    "nvidia-persistenced": "",
    "nvidia-modprobe": "",
    "nvidia-smi": "libnvidia-ml1 (>= {upstream})",
    "nvidia-fabricmanager": "",
    "libnvidia-nscq": "",
    "libcuda1": "",
    "libnvidia-ml1": "",
}
OTHERS = {"nvidia-container-toolkit": ["1.19.1-1", "1.20.1-1"], "libnvidia-egl-wayland1": ["1:1.1.10-1"]}


def stanza(name, version, depends="", more=""):
    lines = ["Package: %s" % name, "Version: %s" % version, "Architecture: amd64", "Maintainer: Nobody <n@example.net>"]
    lines += ["Depends: %s" % depends] if depends else []
    return "\n".join(lines) + "\n" + more + "Description: stands in\n\n"


def family_stanzas(version, more=""):
    upstream = version.split("-")[0]
    return "".join(
        stanza(name, version, depends.format(version=version, upstream=upstream), more)
        for name, depends in FAMILY.items()
    )


class Apt:
    """An apt of its own, with a preferences file."""

    def __init__(self, place, preferences, installed=""):
        self.place = place
        for part in ("etc/parts", "state/lists/partial", "cache/archives/partial", "repository"):
            (place / part).mkdir(parents=True)
        packages = "".join(family_stanzas(version, self.archive()) for version in (OLD, PINNED, NEW))
        for name, versions in OTHERS.items():
            packages += "".join(stanza(name, version, "", self.archive()) for version in versions)
        (place / "repository/Packages").write_text(packages)
        (place / "etc/sources.list").write_text("deb [trusted=yes arch=amd64] file:%s/repository ./\n" % place)
        (place / "etc/preferences").write_text(preferences)
        (place / "status").write_text(installed)
        (place / "apt.conf").write_text(
            'Dir "%s";\nDir::Etc "etc";\nDir::Etc::sourceparts "parts";\nDir::Etc::preferencesparts "parts";\n'
            'Dir::Etc::parts "parts";\nDir::State "state";\nDir::State::status "%s/status";\n'
            'Dir::Cache "cache";\nAPT::Architecture "amd64";\nAPT::Architectures { "amd64"; };\n'
            'APT::Install-Recommends "false";\nAcquire::Languages "none";\nDebug::NoLocking "true";\n' % (place, place)
        )
        self.run("apt-get", "update")

    @staticmethod
    def archive():
        return "Filename: x.deb\nSize: 1\nSHA256: %s\n" % ("0" * 64)

    def run(self, *command):
        environment = dict(os.environ, APT_CONFIG=str(self.place / "apt.conf"), LC_ALL="C")
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def candidate(self, name):
        return re.search(r"Candidate: (\S+)", self.run("apt-cache", "policy", name)).group(1)

    def would(self, *command):
        """Return what apt would have installed after a command: name to version."""
        said = self.run("apt-get", "--simulate", "--yes", "--allow-downgrades", *command)
        return dict(re.findall(r"^Inst (\S+) (?:\[[^\]]*\] )?\((\S+)", said, re.MULTILINE))


def installed(*versions):
    return "".join(family_stanzas(version, "Status: install ok installed\n") for version in versions)


@pytest.fixture
def driver(release):
    return planning.gpu_stack_plan(release, host("2330"))["driver"]


def asked(driver):
    return ["%(name)s=%(version)s" % package for package in driver["packages"]]


def test_the_whole_family_comes_at_the_pinned_version(tmp_path, driver):
    apt = Apt(tmp_path, driver["preferences"])
    would = apt.would("install", *asked(driver))
    assert set(would) == set(FAMILY) - {"nvidia-kernel-dkms"}
    assert set(would.values()) == {PINNED}


def test_without_the_preferences_it_would_not(tmp_path, driver):
    """What the file is for: apt takes the rest of the family at the newest version, and then it doesn't fit."""
    apt = Apt(tmp_path, "")
    assert apt.candidate("libcuda1") == NEW
    with pytest.raises(AssertionError, match=r"nvidia-smi \(= 580\.178\.04-1\) but 595\.58\.03-1 is to be"):
        apt.would("install", *asked(driver))


def test_an_upgrade_leaves_the_family_where_it_is(tmp_path, driver):
    apt = Apt(tmp_path, driver["preferences"], installed(PINNED))
    assert apt.would("dist-upgrade") == {}
    assert Apt(tmp_path / "bare", "", installed(PINNED)).would("dist-upgrade")["libcuda1"] == NEW


def test_no_other_version_can_be_had_by_name_alone(tmp_path, driver):
    apt = Apt(tmp_path, driver["preferences"])
    for name in FAMILY:
        assert apt.candidate(name) == PINNED
    assert apt.candidate("nvidia-container-toolkit") == "1.20.1-1"
    assert apt.candidate("libnvidia-egl-wayland1") == "1:1.1.10-1"


def test_a_downgrade_takes_every_member_along(tmp_path, release):
    """Libraries that ask for this driver or a newer one stay behind, unless they are named: the plan names them."""
    there = dict.fromkeys(sorted(set(FAMILY) - {"nvidia-kernel-dkms"}), NEW)
    driver = planning.gpu_stack_plan(release, host("2330", installed=there))["driver"]
    status = "".join(stanza(name, NEW, "", "Status: install ok installed\n") for name in there)
    apt = Apt(tmp_path, driver["preferences"], status)
    assert apt.would("install", *asked(driver)) == dict.fromkeys(there, PINNED)


def test_a_family_member_that_the_repository_has_lost_is_not_replaced_by_another_version(tmp_path, release):
    """The pinned version is gone: apt has no candidate, rather than the next best."""
    release["driver"]["version"] = "580.999.01"
    driver = planning.gpu_stack_plan(release, host("2330"))["driver"]
    assert Apt(tmp_path, driver["preferences"]).candidate("libcuda1") == "(none)"
