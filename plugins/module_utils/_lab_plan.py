# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What a lab host is made of: names, addresses, texts and command lines. Pure: nothing here touches the machine."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding

# Counts what the builder does to a base; a change here makes every cached base obsolete.
BUILDER_VERSION = 1
SUITES = ("bookworm", "trixie")
DEBIAN_SUITES = frozenset(
    ("bullseye", "bookworm", "trixie", "forky", "sid", "oldoldstable", "oldstable", "stable", "testing", "unstable")
)
BASE_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-apt",
    "iproute2",
    "ca-certificates",
    "openssl",
    "openssh-server",
    "procps",
    "curl",
    "sudo",
    "gnupg",
)
MASKED_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "apt-daily.service", "apt-daily-upgrade.service")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PROXY_PORT = 3142
RUN_DIR = "/run/gpufleet-lab"
NETNS_DIR = "/run/netns"
# What the control node must have, and the Debian package that brings it.
REQUIREMENTS = (
    ("systemd-nspawn", "systemd-container"),
    ("debootstrap", "debootstrap"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    (KEYRING, "debian-archive-keyring"),
)
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

HostSpec = t.Dict[str, str]
AptEntry = t.Dict[str, t.Any]


def short_hash(*parts: str) -> str:
    """Return eight hexadecimal digits that stand for the parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


class Network:
    """A lab network and the names that go with it; several labs may share one."""

    def __init__(self, cidr: str) -> None:
        self.cidr = cidr
        self.network = ipaddress.IPv4Network(cidr)
        digest = short_hash("network", str(self.network))
        self.bridge = "gfbr%s" % digest
        self.table = "gpufleet_lab_%s" % digest
        self.unit = "gpufleet-lab-packages-%s.service" % digest
        self.run_dir = "%s/%s" % (RUN_DIR, digest)
        self.gateway = str(self.network[1])
        self.prefix_length = self.network.prefixlen


class HostNames:
    """The machine-wide names of one host: unique for a state directory and a host name, and short enough."""

    def __init__(self, state_dir: str, name: str) -> None:
        digest = short_hash("host", state_dir, name)
        self.namespace = "gf-%s" % digest
        self.veth = "gfv%s" % digest
        self.veth_inside = "gfi%s" % digest
        self.machine = "gf%s" % digest
        self.unit = "gpufleet-lab-%s.service" % digest
        self.directory = "%s/%s" % (state_dir, name)
        self.root = "%s/root" % self.directory


def check_inputs(
    hosts: t.Sequence[HostSpec], cidr: str, reserved: t.Sequence[str], *, places: bool = True
) -> t.List[Finding]:
    """Judge the inputs; one finding for each thing that's wrong with them.

    Args:
        hosts: what was asked for: ``{name, suite, address}``.
        cidr: the lab network.
        reserved: names that can't be given to a host, because the state directory uses them.
        places: whether suites and addresses count, or only names do.
    """
    bad: t.List[Finding] = []

    def refuse(check: str, expected: t.Any, found: t.Any, remedy: str, detail: str = "") -> None:
        bad.append(finding(check, False, expected=expected, found=found, remedy=remedy, detail=detail))

    network: t.Optional[ipaddress.IPv4Network] = None
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError as exc:
        refuse(
            "lab_host_network", "an IPv4 network such as 198.18.77.0/24", cidr, "Correct lab_host_network.", str(exc)
        )
    if network is not None and network.num_addresses < 4:
        refuse("lab_host_network", "at least 4 addresses", cidr, "Choose a network of /30 or larger.")
        network = None
    names: t.Set[str] = set()
    addresses: t.Set[str] = set()
    for host in hosts:
        name, suite, address = host["name"], host["suite"], host["address"]
        where = "lab_host_hosts[%s]" % name
        if not HOST_NAME.fullmatch(name) or name in reserved:
            refuse(
                where + ".name",
                "a host name: a-z, 0-9, '-', at most 63 characters, none of %s" % ", ".join(reserved),
                name,
                "Rename the host.",
            )
        if name in names:
            refuse(where + ".name", "each name once", name, "Remove or rename the second host of that name.")
        names.add(name)
        if not places:
            continue
        if suite not in SUITES:
            refuse(where + ".suite", "one of %s" % ", ".join(SUITES), suite, "Choose a suite that's built here.")
        if address in addresses:
            refuse(where + ".address", "each address once", address, "Give the second host an address of its own.")
        addresses.add(address)
        if network is None:
            continue
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError as exc:
            refuse(where + ".address", "an IPv4 address in %s" % network, address, "Correct the address.", str(exc))
            continue
        taken = (network.network_address, network[1], network.broadcast_address)
        if parsed not in network or parsed in taken:
            refuse(
                where + ".address",
                "an address in %s other than %s" % (network, ", ".join(str(a) for a in taken)),
                address,
                "Choose a free address of the lab network, or set lab_host_network to the network you meant.",
            )
    return bad


# -- where packages come from ----------------------------------------------------------------------


def parse_one_line_sources(text: str) -> t.List[AptEntry]:
    """Read a sources.list: one ``{uri, suites, components}`` for each enabled ``deb`` line."""
    entries: t.List[AptEntry] = []
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        found = re.match(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)((?:\s+\S+)*)$", line)
        if found:
            entries.append({"uri": found.group(1), "suites": [found.group(2)], "components": found.group(3).split()})
    return entries


def parse_deb822_sources(text: str) -> t.List[AptEntry]:
    """Read a .sources file: one ``{uri, suites, components}`` for each URI of each enabled ``deb`` stanza."""
    entries: t.List[AptEntry] = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: t.Dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[key] = fields.get(key, "") + " " + line.strip()
            elif ":" in line:
                key, _colon, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            entries.append(
                {
                    "uri": uri,
                    "suites": fields.get("suites", "").split(),
                    "components": fields.get("components", "").split(),
                }
            )
    return entries


def choose_mirrors(entries: t.Sequence[AptEntry]) -> t.Tuple[t.Optional[str], t.Optional[str]]:
    """Pick the Debian archive and its security archive from the control node's own apt entries.

    An entry is taken when it names a suite of Debian itself with component ``main`` over http or https; one whose path
    ends with ``/debian`` goes first, since third parties use Debian's suite names too.

    Returns:
        the archive's and the security archive's URL without a trailing slash; None for what isn't there.
    """
    main: t.List[str] = []
    security: t.List[str] = []
    for entry in entries:
        uri = str(entry["uri"]).rstrip("/")
        if "main" not in entry["components"] or not re.match(r"https?://[^/\s]+(/|$)", uri):
            continue
        for suite in entry["suites"]:
            if suite in DEBIAN_SUITES:
                main.append(uri)
            elif suite.endswith("-security") and suite[: -len("-security")] in DEBIAN_SUITES:
                security.append(uri)
    main.sort(key=lambda uri: not uri.endswith("/debian"))
    security.sort(key=lambda uri: not uri.endswith("/debian-security"))
    return (main[0] if main else None, security[0] if security else None)


def inside_url(url: str) -> str:
    """Return the URL by which a host asks the package proxy for a mirror: plain http, so that the proxy can cache."""
    return "http://" + url.split("://", 1)[1].rstrip("/")


def access_map(mirrors: t.Iterable[t.Optional[str]]) -> t.Dict[str, str]:
    """Return what the package proxy lets a host fetch: ``{prefix as asked for: prefix as fetched}``."""
    return {inside_url(m) + "/": m.rstrip("/") + "/" for m in mirrors if m}


def sources_text(suite: str, mirror: str, security_mirror: t.Optional[str]) -> str:
    """Return the host's debian.sources."""
    text = "Types: deb\nURIs: %s\nSuites: %s %s-updates\nComponents: main\nSigned-By: %s\n" % (
        inside_url(mirror),
        suite,
        suite,
        KEYRING,
    )
    if security_mirror:
        text += "\nTypes: deb\nURIs: %s\nSuites: %s-security\nComponents: main\nSigned-By: %s\n" % (
            inside_url(security_mirror),
            suite,
            KEYRING,
        )
    return text


def apt_text(gateway: str, control_node_options: t.Mapping[str, str]) -> str:
    """Return the host's apt configuration: the package proxy, and the control node's trust in dates."""
    lines = ['Acquire::http::Proxy "http://%s:%d";' % (gateway, PROXY_PORT), 'Acquire::Languages "none";']
    lines.extend('%s "%s";' % (key, value) for key, value in sorted(control_node_options.items()))
    return "\n".join(lines) + "\n"


def base_key(suite: str, mirror: str, security_mirror: t.Optional[str], packages: t.Sequence[str]) -> str:
    """Return the key of a base: everything it's made from."""
    made_from = {
        "builder": BUILDER_VERSION,
        "suite": suite,
        "mirror": mirror,
        "security_mirror": security_mirror,
        "packages": sorted(set(BASE_PACKAGES) | set(packages)),
        "masked_units": MASKED_UNITS,
    }
    return "%s-%s" % (suite, hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12])


def debootstrap_argv(suite: str, target: str, mirror: str, script: t.Optional[str]) -> t.List[str]:
    """Return the command that fills a base, in namespaces of its own: what it mounts and starts ends with it."""
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child=KILL"),
        *("debootstrap", "--variant=minbase", "--keyring=%s" % KEYRING, "--include=%s" % ",".join(BASE_PACKAGES)),
        *(suite, target, inside_url(mirror)),
        *([script] if script else []),
    ]


# -- the network and the host ----------------------------------------------------------------------


def firewall_text(network: Network) -> str:
    """Return the nft ruleset that keeps a lab network in: it reaches itself and the package proxy, nothing else."""
    return """table inet {table}
delete table inet {table}
table inet {table} {{
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{bridge}" ct state established,related accept
    iifname "{bridge}" ip daddr {gateway} tcp dport {port} accept
    iifname "{bridge}" reject with icmpx admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{bridge}" oifname "{bridge}" accept
    iifname "{bridge}" reject with icmpx admin-prohibited
    oifname "{bridge}" drop
  }}
}}
""".format(table=network.table, bridge=network.bridge, gateway=network.gateway, port=PROXY_PORT)


def nspawn_argv(names: HostNames, name: str) -> t.List[str]:
    """Return the command that boots a host.

    CAP_NET_ADMIN is needed for PrivateNetwork= to be enforced inside, CAP_BPF, CAP_PERFMON and bpf() for
    IPAddressDeny=: without them systemd leaves both out without a word.
    """
    return [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        *("-D", names.root),
        *("-M", names.machine),
        "--hostname=%s" % name,
        "--network-namespace-path=%s/%s" % (NETNS_DIR, names.namespace),
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=passive",
        "--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON",
        "--system-call-filter=bpf",
        "--boot",
    ]


def hosts_text(name: str) -> str:
    """Return the host's /etc/hosts."""
    return "127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost ip6-loopback\n" % name


def known_hosts_text(hosts: t.Mapping[str, t.Tuple[str, str]]) -> str:
    """Return known_hosts for ``{name: (address, public key line)}``."""
    lines = []
    for _name, (address, public_key) in sorted(hosts.items()):
        kind, key = public_key.split()[:2]
        lines.append("%s %s %s" % (address, kind, key))
    return "".join(line + "\n" for line in lines)


def host_drift(wanted: HostSpec, recorded: t.Mapping[str, t.Any], network: str) -> t.List[Finding]:
    """Judge a host that's there against what's asked for; a difference isn't mended but refused."""
    bad: t.List[Finding] = []
    for key, value in (("suite", wanted["suite"]), ("address", wanted["address"]), ("network", network)):
        if recorded.get(key) != value:
            bad.append(
                finding(
                    "lab_host_hosts[%s].%s" % (wanted["name"], key),
                    False,
                    expected=recorded.get(key),
                    found=value,
                    detail="The host exists and what it was made with can't be changed.",
                    remedy="Destroy the host first (lab_host_state: absent), or ask for what it is.",
                )
            )
    return bad
