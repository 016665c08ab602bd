# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab host is made of."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _lab_plan as plan

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: bookworm
  bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""
GOOD = [{"name": "lab1", "suite": "bookworm", "address": "198.18.77.11"}]


def checks(hosts: t.List[t.Dict[str, str]], cidr: str = "198.18.77.0/24", **more: t.Any) -> t.List[str]:
    return [f["check"] for f in plan.check_inputs(hosts, cidr, ("ssh",), **more)]


def test_good_inputs_are_not_refused() -> None:
    assert checks(GOOD) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", "UPPER", "-a", "a-", "ssh", ".lock", "a" * 64])
def test_a_name_that_could_leave_its_directory_or_is_no_host_name_is_refused_in_every_state(name: str) -> None:
    hosts = [{**GOOD[0], "name": name}]
    assert checks(hosts) == ["lab_host_hosts[%s].name" % name]
    assert checks(hosts, places=False) == ["lab_host_hosts[%s].name" % name]


@pytest.mark.parametrize("address", ["198.18.77.0", "198.18.77.1", "198.18.77.255", "198.18.78.5", "x", ""])
def test_an_address_outside_or_taken_is_refused(address: str) -> None:
    assert checks([{**GOOD[0], "address": address}]) == ["lab_host_hosts[lab1].address"]
    assert checks([{**GOOD[0], "address": address}], places=False) == []


def test_all_reasons_come_at_once() -> None:
    twice = [*GOOD, {"name": "lab1", "suite": "sarge", "address": "198.18.77.11"}]
    assert checks(twice) == [
        "lab_host_hosts[lab1].name",
        "lab_host_hosts[lab1].suite",
        "lab_host_hosts[lab1].address",
    ]


@pytest.mark.parametrize("cidr", ["198.18.77.1/24", "fd00::/64", "198.18.77.0/31", "nonsense"])
def test_a_network_that_is_none_is_refused(cidr: str) -> None:
    assert checks(GOOD, cidr) == ["lab_host_network"]


def test_deb822_sources_are_read() -> None:
    entries = plan.parse_deb822_sources(DEB822)
    assert [e["uri"] for e in entries] == ["http://mirror.example/debian/", "http://mirror.example/debian-security"]
    assert entries[0]["suites"] == ["bookworm", "bookworm-updates"]
    assert plan.choose_mirrors(entries) == ("http://mirror.example/debian", "http://mirror.example/debian-security")


def test_one_line_sources_are_read() -> None:
    text = """\
# deb http://no.example/debian bookworm main
deb [arch=amd64 signed-by=/x.gpg] http://third.example/apt bookworm main
deb-src http://src.example/debian bookworm main
deb https://a.example/debian trixie main contrib # why
"""
    entries = plan.parse_one_line_sources(text)
    assert [e["uri"] for e in entries] == ["http://third.example/apt", "https://a.example/debian"]
    # A third party that uses Debian's own suite name doesn't become the mirror.
    assert plan.choose_mirrors(entries) == ("https://a.example/debian", None)


@pytest.mark.parametrize(
    "line",
    ["deb cdrom:[Debian]/ bookworm main", "deb file:/srv/debian bookworm main", "deb http://x/ubuntu noble main"],
)
def test_what_is_no_debian_mirror_over_http_is_not_chosen(line: str) -> None:
    assert plan.choose_mirrors(plan.parse_one_line_sources(line)) == (None, None)


def test_a_host_asks_the_proxy_in_plain_http_and_the_proxy_fetches_by_https() -> None:
    assert plan.access_map(["https://a.example/debian", None]) == {
        "http://a.example/debian/": "https://a.example/debian/"
    }
    text = plan.sources_text("trixie", "https://a.example/debian", "https://a.example/debian-security")
    assert "URIs: http://a.example/debian\n" in text
    assert "Suites: trixie trixie-updates\n" in text
    assert "Suites: trixie-security\n" in text
    assert "security" not in plan.sources_text("trixie", "https://a.example/debian", None)


def test_the_key_of_a_base_follows_all_it_is_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        plan.base_key("bookworm", "http://m/debian", None, []),
        plan.base_key("trixie", "http://m/debian", None, []),
        plan.base_key("bookworm", "http://n/debian", None, []),
        plan.base_key("bookworm", "http://m/debian", "http://m/debian-security", []),
        plan.base_key("bookworm", "http://m/debian", None, ["libnuma1"]),
    ]
    monkeypatch.setattr(plan, "BUILDER_VERSION", plan.BUILDER_VERSION + 1)
    keys.append(plan.base_key("bookworm", "http://m/debian", None, []))
    assert len(set(keys)) == len(keys)
    assert plan.base_key("bookworm", "m", None, ["b", "a"]) == plan.base_key("bookworm", "m", None, ["a", "b", "curl"])


def test_names_are_short_enough_and_differ_between_labs() -> None:
    one, other = plan.HostNames("/a/hosts", "lab1"), plan.HostNames("/b/hosts", "lab1")
    assert one.veth != other.veth
    assert one.namespace != other.namespace
    assert one.machine != other.machine
    for name in (one.veth, one.veth_inside, plan.Network("198.18.77.0/24").bridge):
        assert len(name) <= 15


def test_the_ruleset_lets_out_nothing_but_the_package_proxy() -> None:
    network = plan.Network("198.18.77.0/24")
    rules = [line.strip() for line in plan.firewall_text(network).splitlines() if "ifname" in line]
    bridge = 'iifname "%s"' % network.bridge
    assert rules == [
        bridge + " ct state established,related accept",
        bridge + " ip daddr 198.18.77.1 tcp dport 3142 accept",
        bridge + " reject with icmpx admin-prohibited",
        bridge + ' oifname "%s" accept' % network.bridge,
        bridge + " reject with icmpx admin-prohibited",
        'oifname "%s" drop' % network.bridge,
    ]


def test_nspawn_keeps_what_isolation_inside_needs() -> None:
    argv = plan.nspawn_argv(plan.HostNames("/a/hosts", "lab1"), "lab1")
    assert "--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON" in argv
    assert "--system-call-filter=bpf" in argv
    assert argv[argv.index("-D") + 1] == "/a/hosts/lab1/root"


def test_a_host_that_is_something_else_is_refused_and_told_why() -> None:
    recorded = {**GOOD[0], "network": "198.18.77.0/24"}
    assert plan.host_drift(GOOD[0], recorded, "198.18.77.0/24") == []
    bad = plan.host_drift({**GOOD[0], "suite": "trixie"}, recorded, "198.18.77.0/24")
    assert [(f["check"], f["found"], f["expected"]) for f in bad] == [
        ("lab_host_hosts[lab1].suite", "trixie", "bookworm")
    ]


def test_known_hosts_leaves_the_comment_out() -> None:
    text = plan.known_hosts_text({"b": ("198.18.77.2", "ssh-ed25519 AAA b"), "a": ("198.18.77.3", "ssh-ed25519 BBB a")})
    assert text == "198.18.77.3 ssh-ed25519 BBB\n198.18.77.2 ssh-ed25519 AAA\n"


def test_apt_inside_trusts_dates_as_the_control_node_does() -> None:
    assert 'Acquire::Check-Date "false";' in plan.apt_text("198.18.77.1", {"Acquire::Check-Date": "false"})
    assert "Check-Date" not in plan.apt_text("198.18.77.1", {})
