# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the counts of packets prove, and what they don't."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _egress_proof as egress

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
#: sshd listens on 22, one session from 198.18.77.1; something speaks to 192.0.2.5:443; loopback.
TCP = (
    HEAD
    + "   0: 00000000:0016 00000000:0000 0A 0\n"
    + "   1: 0B4D12C6:0016 014D12C6:C350 01 0\n"
    + "   2: 0B4D12C6:8000 050200C0:01BB 01 0\n"
    + "   3: 0100007F:8001 0100007F:1F90 01 0\n"
)
#: The same session on a socket of both families, and one to 2001:db8::1.
TCP6 = (
    HEAD
    + "   0: 0000000000000000FFFF00000B4D12C6:0016 0000000000000000FFFF0000014D12C6:C351 01 0\n"
    + "   1: 0000000000000000FFFF00000B4D12C6:9000 B80D0120000000000000000001000000:01BB 01 0\n"
)
RECORD = {
    "packets": {"answers": 12, "started": 0, "allowed": 3, "forwarded": 0, "loopback": 9, "neighbour": 2},
    "contacted": [],
    "ruleset_sha256": "aa",
    "started_ruleset_sha256": "aa",
    "seconds": 60,
}


class Host:
    """Its tables, and an nft that says what it was told to."""

    def __init__(self, files=None, answers=None):
        self.files, self.answers = files or {}, answers or {}

    def read(self, path):
        return self.files.get(path)

    def run(self, argv):
        return self.answers.get(argv[-1], (127, "", ""))


def failed(record):
    return [one["check"] for one in egress.findings(record) if not one["ok"]]


def test_connections_that_were_there_are_told_apart():
    answered, begun = egress.standing(Host({"/proc/net/tcp": TCP, "/proc/net/tcp6": TCP6}))
    assert answered == [(6, "198.18.77.1", 50000, 22), (6, "198.18.77.1", 50001, 22)]
    assert begun == [(6, "192.0.2.5", 443, 32768), (6, "2001:db8::1", 443, 36864)]


def test_nothing_but_answers_is_proof():
    assert failed(RECORD) == []


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"packets": dict(RECORD["packets"], started=1)}, "egress.started_packets"),
        ({"packets": dict(RECORD["packets"], forwarded=1)}, "egress.started_packets"),
        ({"packets": dict(RECORD["packets"], answers=0)}, "egress.counted"),
        ({"ruleset_sha256": "bb"}, "egress.counted"),
    ],
)
def test_what_is_no_proof(change, check):
    assert failed(dict(RECORD, **change)) == [check]


def test_whom_it_spoke_to_is_said():
    record = dict(RECORD, packets=dict(RECORD["packets"], started=4), contacted=["udp 192.0.2.1 port 9"])
    assert "to udp 192.0.2.1 port 9" in egress.findings(record)[1]["detail"]


def test_no_count_is_no_pass():
    assert egress.not_counted()["ok"] is False


@pytest.mark.parametrize("wrong", ["123", "icmp/1", "udp/0", "udp/x", "tcp/70000", "udp/1; drop"])
def test_an_exception_is_a_protocol_and_a_port(wrong):
    with pytest.raises(ValueError, match="udp/123"):
        egress.rules([], [], [wrong])


def test_an_nft_that_lacks_or_fails_is_said():
    with pytest.raises(OSError, match="install the package nftables"):
        egress.Nft(Host()).run("list")
    with pytest.raises(OSError, match="no rights"):
        egress.Nft(Host(answers={"list": (1, "", "no rights")})).run("list")


def test_what_nft_lists_is_read():
    counters = {"nftables": [{"metainfo": {}}, {"counter": {"name": "started", "packets": 2}}]}
    contacted = {"nftables": [{"set": {"elem": [{"concat": [17, "192.0.2.1", 9]}]}}]}
    pinged = {"nftables": [{"set": {"elem": [{"concat": [1, "192.0.2.2"]}]}}]}
    empty = {"nftables": [{"set": {}}]}
    answers = {egress.TABLE: counters, "contacted4": contacted, "contacted6": empty, "pinged4": pinged}
    nft = egress.Nft(Host(answers={name: (0, json.dumps(value), "") for name, value in answers.items()}))
    assert nft.counts() == {"started": 2}
    assert nft.contacted() == ["icmp 192.0.2.2", "udp 192.0.2.1 port 9"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nft")
def test_the_kernel_counts_what_is_begun_in_a_network_of_its_own(tmp_path):
    """In a namespace with a device: a packet that is sent is counted as begun here, one that is allowed isn't."""
    rules = tmp_path / "rules"
    answered, begun = egress.standing(Host({"/proc/net/tcp": TCP, "/proc/net/tcp6": TCP6}))
    rules.write_text(egress.rules(answered, begun, ["udp/123"]))
    script = (
        """set -e
    ip link set lo up; ip link add out type veth peer name other
    ip address add 192.0.2.2/24 dev out; ip link set out up
    nft -f %s
    for port in 9 123; do python3 -c "import socket; socket.socket(2, 2).sendto(b'x', ('192.0.2.1', $port))"; done
    python3 -c "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9))"
    nft --json list counters table inet gpufleet_egress
    nft --json list set inet gpufleet_egress contacted4"""
        % rules
    )
    done = subprocess.run(["unshare", "-n", "bash", "-c", script], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr or "unshare failed" in done.stderr:
        pytest.skip("no network namespace here: %s" % done.stderr.strip())
    assert done.returncode == 0, done.stderr
    counters, contacted = (json.loads(line)["nftables"] for line in done.stdout.splitlines())
    packets = {one["counter"]["name"]: one["counter"]["packets"] for one in counters if "counter" in one}
    assert packets["started"] >= 1
    assert packets["allowed"] >= 1
    assert packets["loopback"] >= 1
    spoken = [one["concat"] for s in contacted if "set" in s for one in s["set"]["elem"]]
    assert "udp 192.0.2.1 port 9" in [egress.named(one) for one in spoken]
