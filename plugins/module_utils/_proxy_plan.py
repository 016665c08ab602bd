# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Turns the proxy's inputs into the plan that its templates render, or says everything that is wrong with them."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _finding

MODEL = re.compile(r"[a-z0-9]([a-z0-9.-]{0,58}[a-z0-9])?")
CLIENT = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
DIGEST = re.compile(r"[0-9a-f]{64}")
PATH = re.compile(r"(/[A-Za-z0-9_-]+)+")
ABSOLUTE = re.compile(r"/[A-Za-z0-9._/{}@+-]+")
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
PLACEHOLDER = "# made by the role llm_pki when it really runs\n"
TREE = "/etc/gpufleet/proxy"
TLS_FILES = (("ca.crt", "0644"), ("crl.pem", "0644"), ("server.crt", "0644"), ("server.key", "0600"))
LIMIT_RANGES = {
    "llm_proxy_failed_authentications_burst": (0, 100000),
    "llm_proxy_client_burst_requests": (0, 100000),
}
DEFAULT_RANGE = (1, 2**40)

Mapping = t.Mapping[str, t.Any]
Findings = t.List[_finding.Finding]


def is_address(text: str) -> bool:
    """Say whether the text is an IPv4 address, or an IPv6 one in brackets, as nginx's listen takes it."""
    try:
        if text.startswith("[") and text.endswith("]"):
            ipaddress.IPv6Address(text[1:-1])
        else:
            ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def probe_address(listen_addresses: t.Sequence[str]) -> str:
    """Return the address under which the host itself reaches the first listener."""
    first = listen_addresses[0].strip("[]") if listen_addresses else ""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(first, first)  # noqa: S104  # compared, not bound


def quote_subject(subject: str) -> str:
    """Return a distinguished name as it stands between double quotes in nginx's configuration."""
    return subject.replace("\\", "\\\\").replace('"', '\\"')


class Checks:
    """Collects refusals."""

    def __init__(self) -> None:
        self.findings: Findings = []

    def refuse(self, check: str, expected: str, found: t.Any, detail: str, remedy: str) -> None:
        self.findings.append(
            _finding.finding("proxy.%s" % check, False, expected=expected, found=found, detail=detail, remedy=remedy)
        )

    def matches(self, check: str, pattern: t.Pattern[str], value: t.Any, expected: str, where: str) -> bool:
        if isinstance(value, str) and pattern.fullmatch(value):
            return True
        self.refuse(check, expected, repr(value), "It is in %s." % where, "Correct it in %s." % where)
        return False


def plan_models(models: t.Sequence[Mapping], authorization_include: str, checks: Checks) -> t.List[t.Dict[str, t.Any]]:
    """Return the models with instance, port, socket and include settled."""
    planned: t.List[t.Dict[str, t.Any]] = []
    if not models:
        checks.refuse("models", "at least one model", "none", "llm_proxy_models is empty.", "State a model in it.")
    ports: t.Dict[int, str] = {}
    names: t.Set[str] = set()
    for model in models:
        name = model.get("name")
        where = "llm_proxy_models, name %r" % (name,)
        if not checks.matches("model_name", MODEL, name, "at most 60 of a-z 0-9 . -", where):
            continue
        name = str(name)
        if name in names:
            checks.refuse("model_name", "each name once", name, "It is in llm_proxy_models.", "Rename one of them.")
        names.add(name)
        slot = model.get("slot", "a")
        if slot not in ("a", "b"):
            checks.refuse("model_slot", "a or b", repr(slot), "It is in %s." % where, "Set slot to a or b.")
            continue
        port = model.get("port")
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            checks.refuse("model_port", "1 to 65535", repr(port), "It is in %s." % where, "Set its port.")
            continue
        if port in ports:
            checks.refuse(
                "model_port",
                "each port once",
                "%d for %s and %s" % (port, ports[port], name),
                "They are in llm_proxy_models.",
                "Give one of them another port.",
            )
        ports[port] = name
        instance = "%s-%s" % (name, slot)
        given = model.get("authorization_include")
        include = (authorization_include if given is None else str(given)).replace("{instance}", instance)
        socket = str(model.get("socket") or "/run/gpufleet/%s/engine.sock" % instance)
        checks.matches("engine_socket", ABSOLUTE, socket, "an absolute path", where)
        if include:
            checks.matches("authorization_include", ABSOLUTE, include, "an absolute path, or empty", where)
        planned.append(
            {"name": name, "instance": instance, "port": port, "socket": socket, "authorization_include": include}
        )
    return planned


def plan_clients(
    clients: t.Sequence[Mapping], validate_client: str, made: Mapping, check_mode: bool, checks: Checks
) -> t.List[t.Dict[str, t.Any]]:
    """Return the clients with subject and digests settled, the digests looked up among those llm_pki made."""
    planned: t.List[t.Dict[str, t.Any]] = []
    if not clients:
        checks.refuse(
            "clients",
            "at least one client",
            "none",
            "llm_proxy_clients is empty: nobody could call.",
            "Name a client in gpufleet_clients.",
        )
    wanted = [*clients, {"name": validate_client}] if validate_client else list(clients)
    owners: t.Dict[str, str] = {}
    names: t.Set[str] = set()
    for client in wanted:
        name = client.get("name")
        where = "llm_proxy_clients, name %r" % (name,)
        if not checks.matches("client_name", CLIENT, name, "at most 63 of a-z 0-9 . _ -", where):
            continue
        name = str(name)
        if name in names:
            checks.refuse(
                "client_name",
                "each name once",
                name,
                "llm_proxy_clients and llm_proxy_validate_client name it.",
                "Leave it out of llm_proxy_clients, or rename it.",
            )
        names.add(name)
        digests = client.get("api_key_sha256", made.get(name) or [])
        if isinstance(digests, str):
            digests = [digests]
        if not digests and not check_mode:
            checks.refuse(
                "client_digest",
                "at least one SHA-256 digest of an API key",
                "none",
                "It is about %s." % where,
                "Run the role llm_pki before this one (llm_proxy_pki_dir), or state api_key_sha256.",
            )
        for digest in digests:
            if not checks.matches("client_digest", DIGEST, digest, "64 lower-case hexadecimal digits", where):
                continue
            if owners.setdefault(digest, name) != name:
                checks.refuse(
                    "client_digest",
                    "a key of its own for every client",
                    "one key for %s and %s" % (owners[digest], name),
                    "They are in llm_proxy_clients.",
                    "Make a new key for one of them.",
                )
        subject = client.get("subject_dn") or "CN=%s" % name
        if not re.fullmatch(r"[\x20-\x7e]{4,512}", str(subject)):
            checks.refuse(
                "client_subject",
                "printable ASCII as `openssl x509 -noout -subject -nameopt RFC2253` prints it",
                repr(subject),
                "It is in %s." % where,
                "Correct its subject_dn.",
            )
        planned.append(
            {
                "name": name,
                "subject_dn": str(subject),
                "quoted_subject_dn": quote_subject(str(subject)),
                "api_key_sha256": list(dict.fromkeys(digests)),
            }
        )
    return planned


def check_endpoints(endpoints: t.Sequence[Mapping], checks: Checks) -> None:
    """Refuse endpoints that aren't plain paths, or that are there twice."""
    paths: t.Set[str] = set()
    if not endpoints:
        checks.refuse("endpoints", "at least one path", "none", "llm_proxy_endpoints is empty.", "List what is served.")
    for endpoint in endpoints:
        path = endpoint.get("path")
        if not checks.matches("endpoint", PATH, path, "a path of letters, digits, _ and -", "llm_proxy_endpoints"):
            continue
        if str(path) in paths:
            checks.refuse("endpoint", "each path once", path, "It is in llm_proxy_endpoints.", "Remove one.")
        paths.add(str(path))


def tls_files(made: Mapping, check_mode: bool, checks: Checks) -> t.List[t.Dict[str, t.Any]]:
    """Return the entries of place_files for certificates and revocation list."""
    entries: t.List[t.Dict[str, t.Any]] = []
    for name, mode in TLS_FILES:
        path = made["files"].get(name)
        entry: t.Dict[str, t.Any] = {"dest": "%s/tls/%s" % (TREE, name), "mode": mode, "secret": name == "server.key"}
        if path:
            entry["src"] = path
        elif check_mode:
            entry["content"] = PLACEHOLDER
        else:
            checks.refuse(
                "certificates",
                "%s in %s" % (name, made["path"]),
                "no such file",
                "llm_proxy_pki_dir says where.",
                "Run the role llm_pki before this one.",
            )
            continue
        entries.append(dict(entry, owner="root", group="root"))
    return entries


def proxy_plan(given: Mapping) -> t.Dict[str, t.Any]:
    """Return the proxy's plan.

    Args:
        given: the role's inputs by their names without prefix, ``pki`` as the lookup ``pki_outputs`` returns it, and
            ``check_mode``: what llm_pki has yet to make isn't missed then.

    Returns:
        ``refusal``: every reason why this can't be served, or an empty string; ``models``, ``clients``,
        ``endpoints``, ``server_names``: settled; ``files``: entries of place_files that depend on them;
        ``probe_address``: where the host reaches its own listener.
    """
    checks = Checks()
    check_mode = bool(given["check_mode"])
    models = plan_models(given["models"] or [], given["authorization_include"] or "", checks)
    clients = plan_clients(
        given["clients"] or [], given["validate_client"] or "", given["pki"]["clients"], check_mode, checks
    )
    check_endpoints(given["endpoints"] or [], checks)
    for name in given["server_names"]:
        if not is_address(str(name)):
            checks.matches("server_name", HOST, name, "a host name or an address", "llm_proxy_server_names")
    for address in given["listen_addresses"]:
        if not is_address(str(address)):
            checks.refuse(
                "listen_address",
                "an IPv4 address, or an IPv6 one in brackets",
                repr(address),
                "It is in llm_proxy_listen_addresses.",
                "Correct it.",
            )
    if not given["listen_addresses"]:
        checks.refuse(
            "listen_address", "at least one address", "none", "llm_proxy_listen_addresses is empty.", "State one."
        )
    for variable, value in given["limits"].items():
        low, high = LIMIT_RANGES.get(variable, DEFAULT_RANGE)
        if not low <= value <= high:
            checks.refuse("limit", "%d to %d" % (low, high), value, "It is %s." % variable, "Correct it.")
    files = tls_files(given["pki"], check_mode, checks)
    for model in models:
        for kind in ("upstream", "server"):
            files.append(
                {
                    "dest": "%s/%ss/%s.conf" % (TREE, kind, model["name"]),
                    "template": "%s.conf.j2" % kind,
                    "vars": {"model": model},
                }
            )
    return {
        "refusal": _finding.refusal_message(checks.findings, "The proxy"),
        "models": models,
        "clients": clients,
        "endpoints": [dict(endpoint) for endpoint in given["endpoints"] or []],
        "server_names": list(given["server_names"]),
        "files": files,
        "probe_address": probe_address([str(address) for address in given["listen_addresses"]]),
    }
