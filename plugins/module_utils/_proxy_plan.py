# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Turns the proxy's inputs into the plan that its templates render, or says everything that is wrong with them."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _finding, _proxy_clients, _proxy_token
from ansible_collections.gpufleet.llm.plugins.module_utils._proxy_checks import Checks

MODEL = re.compile(r"[a-z0-9]([a-z0-9.-]{0,58}[a-z0-9])?")
PATH = re.compile(r"(/[A-Za-z0-9_-]+)+")
ABSOLUTE = re.compile(r"/[A-Za-z0-9._/{}@+-]+")
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
PLACEHOLDER = "# made by the role llm_pki when it really runs\n"
TREE = "/etc/gpufleet/proxy"
METRICS_PROGRAM = "/opt/gpufleet/libexec/llm_proxy_metrics.py"
METRICS_UNIT = "llm-proxy-metrics.service"
TLS_FILES = (("ca.crt", "0644"), ("crl.pem", "0644"), ("server.crt", "0644"), ("server.key", "0600"))
LIMIT_RANGES = {
    "llm_proxy_failed_authentications_burst": (0, 100000),
    "llm_proxy_client_burst_requests": (0, 100000),
}
DEFAULT_RANGE = (1, 2**40)

Mapping = t.Mapping[str, t.Any]


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
        fallback = str(model.get("fallback_socket") or "")
        if fallback:
            checks.matches("fallback_socket", ABSOLUTE, fallback, "an absolute path", where)
        if fallback == socket:
            checks.refuse(
                "fallback_socket", "another socket", fallback, "It is in %s." % where, "Name another engine's."
            )
        planned.append(
            {
                "name": name,
                "id": "m%d" % len(planned),
                "instance": instance,
                "port": port,
                "socket": socket,
                "fallback_socket": fallback,
                "authorization_include": include,
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


def plan_admin(
    given: Mapping, models: t.Sequence[Mapping], clients: t.Sequence[Mapping], checks: Checks
) -> t.List[str]:
    """Return the certificates' subjects that may read metrics; none where no client is named, or port 0."""
    names = list(given.get("admin_clients") or [])
    port = given.get("admin_port")
    if not names or port == 0:
        return []
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        checks.refuse("admin_port", "1 to 65535", repr(port), "It is llm_proxy_admin_port.", "Correct it.")
    for model in models:
        if model["port"] == port:
            checks.refuse(
                "admin_port",
                "a port of its own",
                "%d, which %s has" % (port, model["name"]),
                "It is llm_proxy_admin_port.",
                "Give one of them another port.",
            )
    subjects = {client["name"]: client["subject_dn"] for client in clients}
    for name in names:
        if name not in subjects:
            checks.refuse(
                "admin_client",
                "one of the clients",
                repr(name),
                "It is in llm_proxy_admin_clients.",
                "Name it in gpufleet_clients too, so that it has a certificate.",
            )
    return [subjects[name] for name in names if name in subjects]


def check_names(given: Mapping, checks: Checks) -> None:
    """Refuse what isn't a name or an address where one is needed."""
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
        ``refusal``: every reason why this can't be served, or an empty string; ``models``, ``clients``, ``tiers``,
        ``endpoints``, ``server_names``: settled; ``token``, ``admin``: whether tokens are taken, and whether there is
        a listener for metrics; ``policy``: what the proxy's scripts go by; ``files``: entries of place_files that
        depend on all that; ``probe_address``: where the host reaches its own listener.
    """
    checks = Checks()
    check_mode = bool(given["check_mode"])
    limits = given["limits"]
    pki = given["pki"]
    models = plan_models(given["models"] or [], given["authorization_include"] or "", checks)
    standard = {key: limits.get("llm_proxy_client_%s" % key, 1) for key in _proxy_clients.TIER_LIMITS}
    tiers = _proxy_clients.plan_tiers(given.get("tiers") or {}, standard, checks)
    validate_client = given["validate_client"] or ""
    callers = _proxy_clients.merge_managed(given["clients"] or [], pki.get("managed") or {}, validate_client)
    clients = _proxy_clients.plan_clients(callers, validate_client, pki["clients"], tiers, check_mode, checks)
    token = _proxy_token.plan_token(given.get("token") or {}, clients, checks)
    admins = plan_admin(given, models, clients, checks)
    check_endpoints(given["endpoints"] or [], checks)
    check_names(given, checks)
    for variable, value in limits.items():
        low, high = LIMIT_RANGES.get(variable, DEFAULT_RANGE)
        if not low <= value <= high:
            checks.refuse("limit", "%d to %d" % (low, high), value, "It is %s." % variable, "Correct it.")
    files = tls_files(pki, check_mode, checks)
    for model in models:
        for kind in ("upstream", "server"):
            files.append(
                {
                    "dest": "%s/%ss/%s.conf" % (TREE, kind, model["name"]),
                    "template": "%s.conf.j2" % kind,
                    "vars": {"model": model},
                }
            )
    if admins:
        files.append({"dest": "%s/admin.conf" % TREE, "template": "admin.conf.j2"})
        files.append({"dest": METRICS_PROGRAM, "src": "llm_proxy_metrics.py"})
        files.append({"dest": "/etc/systemd/system/%s" % METRICS_UNIT, "template": "%s.j2" % METRICS_UNIT})
    return {
        "refusal": _finding.refusal_message(checks.findings, "The proxy"),
        "models": models,
        "clients": clients,
        "tiers": [
            dict(limits, id=name, clients=[client["name"] for client in clients if client["tier"] == name])
            for name, limits in tiers.items()
        ],
        "endpoints": [dict(endpoint) for endpoint in given["endpoints"] or []],
        "server_names": list(given["server_names"]),
        "token": bool(token),
        "admin": bool(admins),
        "policy": {"admins": admins, "token": token},
        "files": files,
        "probe_address": probe_address([str(address) for address in given["listen_addresses"]]),
    }
