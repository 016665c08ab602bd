# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Counts every packet that leaves a host, by netfilter, and says whether anything but answers did.

The rules count and change nothing. What the host itself began is told from what it answers by connection tracking;
connections that were there before it watched are taken from the kernel's own tables, for it would take their first
packet for their beginning.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _finding
from ansible_collections.gpufleet.llm.plugins.module_utils._runner import Runner

TABLE = "gpufleet_egress"
COUNTERS = ("answers", "started", "allowed", "forwarded", "loopback", "neighbour")
TCP, UDP = 6, 17
ESTABLISHED, LISTEN = "01", "0A"

Flow = t.Tuple[int, str, int, int]  # protocol, remote address, remote port, local port

RULES = """table inet %(table)s {
%(counters)s
%(sets)s
  chain started {
    counter name started
    meta l4proto { 6, 17 } add @contacted4 { ip protocol . ip daddr . th dport }
    meta l4proto { 6, 17 } add @contacted6 { meta l4proto . ip6 daddr . th dport }
    meta l4proto != { 6, 17 } add @pinged4 { ip protocol . ip daddr }
  }
  chain output {
    type filter hook output priority 300; policy accept;
    oifname "lo" counter name loopback return
    meta l4proto { 6, 17 } ip protocol . ip daddr . th dport . th sport @begun4 goto started
    meta l4proto { 6, 17 } meta l4proto . ip6 daddr . th dport . th sport @begun6 goto started
    meta l4proto { 6, 17 } ip protocol . ip daddr . th dport . th sport @answered4 counter name answers return
    meta l4proto { 6, 17 } meta l4proto . ip6 daddr . th dport . th sport @answered6 counter name answers return
    ct direction reply counter name answers return
    ip6 daddr { fe80::/10, ff02::/16 } meta l4proto 58 counter name neighbour return
    meta l4proto 2 counter name neighbour return
%(allowed)s    goto started
  }
  chain forward {
    type filter hook forward priority 300; policy accept;
    counter name forwarded
  }
}
"""


def address_of(text: str) -> str:
    """Return the address of a field of /proc/net/tcp: words of four bytes, each in the machine's order."""
    raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def sockets(text: str, protocol: int) -> t.Tuple[t.Set[int], t.List[t.Tuple[Flow, str]]]:
    """Return (ports that are listened on, [(flow, local address)] of connected sockets) of a /proc/net table."""
    listening: t.Set[int] = set()
    flows: t.List[t.Tuple[Flow, str]] = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        local, remote, state = fields[1].split(":"), fields[2].split(":"), fields[3]
        if protocol == TCP and state == LISTEN:
            listening.add(int(local[1], 16))
        elif state == ESTABLISHED and int(remote[1], 16):
            flow = (protocol, address_of(remote[0]), int(remote[1], 16), int(local[1], 16))
            flows.append((flow, address_of(local[0])))
    return listening, flows


def standing(runner: Runner) -> t.Tuple[t.List[Flow], t.List[Flow]]:
    """Return (connections to a port that is listened on here, all others) that are there now, over the network."""
    listening: t.Set[int] = set()
    flows: t.List[t.Tuple[Flow, str]] = []
    for name, protocol in (("tcp", TCP), ("tcp6", TCP), ("udp", UDP), ("udp6", UDP)):
        ports, found = sockets(runner.read("/proc/net/" + name) or "", protocol)
        listening |= ports
        flows += found
    away = sorted({flow for flow, _local in flows if not ipaddress.ip_address(flow[1]).is_loopback})
    answered = [flow for flow in away if flow[0] == TCP and flow[3] in listening]
    return answered, [flow for flow in away if flow not in answered]


def element_set(name: str, family: int, flows: t.Sequence[Flow]) -> str:
    """Return a set of flows as nft's language has it."""
    wanted = [flow for flow in flows if ipaddress.ip_address(flow[1]).version == family]
    elements = ", ".join("%d . %s . %d . %d" % flow for flow in wanted)
    kind = "inet_proto . ipv%d_addr . inet_service . inet_service" % family
    return "  set %s {\n    type %s\n%s  }\n" % (
        name, kind, "    elements = { %s }\n" % elements if elements else "",
    )  # fmt: skip


def rules(answered: t.Sequence[Flow], begun: t.Sequence[Flow], allowed: t.Sequence[str]) -> str:
    """Return the rules. Raises ValueError for an exception that isn't ``udp/123`` or ``tcp/443``."""
    sets = "".join(
        element_set("%s%d" % (name, family), family, flows)
        for name, flows in (("answered", answered), ("begun", begun))
        for family in (4, 6)
    )
    for family in (4, 6):
        sets += "  set contacted%d {\n    type inet_proto . ipv%d_addr . inet_service\n" % (family, family)
        sets += "    size 1024\n    flags dynamic\n  }\n"
    sets += "  set pinged4 {\n    type inet_proto . ipv4_addr\n    size 1024\n    flags dynamic\n  }\n"
    lines = ""
    for one in allowed:
        protocol, _slash, port = one.partition("/")
        if protocol not in ("tcp", "udp") or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("%r isn't a protocol and a port like udp/123" % one)
        lines += "    %s dport %s counter name allowed return\n" % (protocol, port)
    counters = "\n".join("  counter %s {\n  }" % name for name in COUNTERS)
    return RULES % {"table": TABLE, "counters": counters, "sets": sets, "allowed": lines}


class Nft:
    """The table on a host."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def run(self, *argv: str) -> str:
        """Run nft. Raises OSError with what it said."""
        rc, out, err = self.runner.run(["nft", *argv])
        if rc == 127:
            raise OSError("nft isn't on this host. Remedy: install the package nftables.")
        if rc != 0:
            raise OSError("nft %s exited with %d: %s" % (" ".join(argv), rc, (err or out).strip()))
        return out

    def there(self) -> bool:
        rc, _out, _err = self.runner.run(["nft", "list", "table", "inet", TABLE])
        return rc == 0

    def fingerprint(self) -> str:
        """Return the sha256 of the chains as the kernel has them, without counts."""
        text = "".join(
            self.run("--stateless", "list", "chain", "inet", TABLE, chain) for chain in ("started", "output", "forward")
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def counts(self) -> t.Dict[str, int]:
        """Return packets by counter."""
        listed = json.loads(self.run("--json", "list", "counters", "table", "inet", TABLE))["nftables"]
        return {one["counter"]["name"]: int(one["counter"]["packets"]) for one in listed if "counter" in one}

    def contacted(self) -> t.List[str]:
        """Return whom the host spoke to by itself, as ``tcp 192.0.2.1 port 443``; 1024 of each kind at most."""
        found: t.List[str] = []
        for name in ("contacted4", "contacted6", "pinged4"):
            listed = json.loads(self.run("--json", "list", "set", "inet", TABLE, name))["nftables"]
            for one in listed:
                for element in one.get("set", {}).get("elem", []):
                    found.append(named(element.get("concat", [])))
        return sorted(found)


def named(parts: t.Sequence[t.Any]) -> str:
    """Return an element of those sets for a person."""
    protocol = {"6": "tcp", "17": "udp", "1": "icmp"}.get(str(parts[0]), str(parts[0])) if parts else "?"
    return " ".join([protocol, *(str(part) for part in parts[1:2]), *("port %s" % part for part in parts[2:3])])


def findings(record: t.Mapping[str, t.Any]) -> t.List[_finding.Finding]:
    """Return what a record of counts proves.

    Args:
        record: ``packets`` by counter, ``contacted``, ``ruleset_sha256``, ``started_ruleset_sha256``, ``seconds``.
    """
    packets = record["packets"]
    whole = record["ruleset_sha256"] == record["started_ruleset_sha256"]
    left = packets["started"] + packets["forwarded"]
    return [
        _finding.finding(
            "egress.counted",
            whole and packets["answers"] > 0,
            expected="the rules that were loaded at the start, and answers counted",
            found="%d answers, rules %s" % (packets["answers"], "unchanged" if whole else "changed"),
            detail="Counted for %d s, by rules of sha256 %s." % (record["seconds"], record["ruleset_sha256"]),
            remedy="start the count again; whoever loads other firewall rules must leave the table %s" % TABLE,
        ),
        _finding.finding(
            "egress.started_packets",
            left == 0,
            expected=0,
            found=left,
            detail="Packets that left the host and answered nobody, in %d s: %d begun here, %d forwarded%s."
            % (record["seconds"], packets["started"], packets["forwarded"],
               "; to " + ", ".join(record["contacted"][:10]) if record["contacted"] else ""),
            remedy="find what sends them, or say that it may (gpu_validate_egress_allowed)",
        ),
    ]  # fmt: skip


def not_counted() -> _finding.Finding:
    """Return the finding of a host on which nothing is counted: no proof is no pass."""
    return _finding.finding(
        "egress.counted",
        False,
        expected="a count that began in this boot",
        found="none",
        remedy="start it: egress_proof with state started, or playbooks/prove_egress.yml",
    )
