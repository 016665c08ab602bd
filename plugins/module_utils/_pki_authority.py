# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""One authority follows another, while both are trusted.

``authorities/state.json`` says which one signs and which ones are trusted; it is written first, in one piece, and
``ca.crt`` (the one that signs first), ``ca.key`` and ``crl.pem`` are made from it: a killed run is run again.
``authorities/<id>.{crt,key}`` are the pairs, ``<id>`` the first digits of the certificate's SHA-256.
"""

from __future__ import annotations

import json
import os
import re
import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import (
    _pki,
    _pki_files,
    _pki_make,
    _pki_records,
    _pki_sign,
)

if t.TYPE_CHECKING:
    from cryptography import x509

STEPS = ("add", "switch", "switch_back", "drop")
IDENTITY = re.compile(r"[0-9a-f]{16}")


class State(t.NamedTuple):
    """Identities of the authorities: the one that signs, and all that are trusted, the oldest first."""

    signing: str
    trusted: t.Tuple[str, ...]


def identity(certificate: "x509.Certificate") -> str:
    """Return the name of an authority's files."""
    return _pki_sign.fingerprint(certificate)[:16]


def read_state(directory: _pki_make.Directory) -> t.Optional[State]:
    """Return the written state, None where no authority was ever added. Raises Refused for a damaged one."""
    path = directory.join("authorities", "state.json")
    content = _pki.read_bytes(path)
    if content is None:
        return None
    try:
        value = json.loads(content)
        state = State(value["signing"], tuple(value["trusted"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise _pki_make.Refused("%s is damaged: %s. Remedy: restore it from your backup." % (path, exc)) from exc
    if state.signing not in state.trusted or not all(IDENTITY.fullmatch(name) for name in state.trusted):
        raise _pki_make.Refused("%s doesn't name its authorities. Remedy: restore it from your backup." % path)
    return state


def certificate_of(directory: _pki_make.Directory, name: str) -> "x509.Certificate":
    """Return the certificate of an authority by its identity. Raises Refused."""
    path = directory.join("authorities", name + ".crt")
    found = _pki.read_certificate(path)
    if found is None or identity(found) != name:
        raise _pki_make.Refused("%s isn't there or is another one. Remedy: restore it from your backup." % path)
    return found


def materialise(directory: _pki_make.Directory, state: State) -> bool:
    """Make ``ca.crt`` and ``ca.key`` what the state says. Returns whether one of them changed."""
    order = [state.signing, *(name for name in state.trusted if name != state.signing)]
    certificates = [_pki_sign.pem(certificate_of(directory, name)) for name in order]
    path = directory.join("authorities", state.signing + ".key")
    key = _pki.read_bytes(path)
    if key is None:
        raise _pki_make.Refused("%s is gone. Remedy: restore it from your backup." % path)
    changed = _pki_files.write(directory.join("ca.key"), key)
    return _pki_files.write(directory.join("ca.crt"), _pki_make.pem_text(certificates)) or changed


def foreign_pairs(directory: _pki_make.Directory, authority: "x509.Certificate") -> t.List[str]:
    """Return the pairs in use that the authority didn't sign; those of revoked clients aren't in use."""
    revoked = set(directory.revoked_clients)
    revoked |= set(_pki_records.revoked_names(_pki_records.read_records(directory.path)))
    found = []
    for usage in ("server", "client"):
        folder = directory.join(usage + "s")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            certificate = _pki.read_certificate(os.path.join(folder, name, usage + ".crt"))
            if usage == "client" and name in revoked:
                continue
            if certificate is not None and not _pki.is_signed_by(certificate, authority):
                found.append("%s %s" % (usage, name))
    return found


def decide(directory: _pki_make.Directory, state: t.Optional[State], step: str) -> t.Optional[State]:
    """Return the state after a step, None for ``add`` where a new authority has to be made. Raises Refused."""
    if step == "add":
        return state if state is not None and len(state.trusted) > 1 else None
    if state is None or (len(state.trusted) < 2 and step != "drop"):
        raise _pki_make.Refused(
            "Refused, nothing was changed: only one authority is trusted. Remedy: the step add comes first."
        )
    if step == "switch":
        return State(state.trusted[-1], state.trusted)
    if step == "switch_back":
        return State(state.trusted[0], state.trusted)
    foreign = foreign_pairs(directory, certificate_of(directory, state.signing))
    if foreign and len(state.trusted) > 1:
        raise _pki_make.Refused(
            "Refused, nothing was changed: these pairs are still of an authority that is to be dropped, and would be "
            "refused from then on: %s. Remedy: run the role llm_pki for all hosts, which makes them anew, and hand "
            "the clients theirs; revoke the clients and remove the directories of the servers that are gone."
            % ", ".join(foreign)
        )
    return State(state.signing, (state.signing,))


def _begin(directory: _pki_make.Directory, name: str, days: float) -> State:
    """Make a new authority beside the present one and return the state in which both are trusted."""
    signing = directory.authority()
    present = t.cast("x509.Certificate", signing.certificate)
    if name == _pki.common_name(present):
        raise _pki_make.Refused(
            "Refused, nothing was changed: the present authority is called %r too. Revocation lists are found by the "
            "authority's name. Remedy: give another one in llm_pki_next_ca_name." % name
        )
    folder = directory.join("authorities")
    _pki_files.make_directory(folder)
    pair = _pki_sign.make_authority(name, days=days, passphrase=directory.secret(), now=directory.now)
    path = os.path.join(folder, "next.crt")
    _pki_files.write(path, pair.certificate)
    new = identity(t.cast("x509.Certificate", _pki.read_certificate(path)))
    _pki_files.write(os.path.join(folder, new + ".key"), pair.key)
    _pki_files.move(path, os.path.join(folder, new + ".crt"))
    old = identity(present)
    _pki_files.write(os.path.join(folder, old + ".crt"), _pki_sign.pem(present))
    _pki_files.write(os.path.join(folder, old + ".key"), t.cast(bytes, _pki.read_bytes(directory.join("ca.key"))))
    return State(old, (old, new))


def _sweep(directory: _pki_make.Directory, state: State) -> t.List[str]:
    """Remove the files of authorities that aren't trusted, and what a killed run left. Returns their names."""
    folder = directory.join("authorities")
    wanted = {"state.json", *("%s.%s" % (name, kind) for name in state.trusted for kind in ("crt", "key"))}
    swept = sorted(set(os.listdir(folder)) - wanted)
    for name in swept:
        _pki_files.remove(os.path.join(folder, name))
    return swept


def describe(directory: _pki_make.Directory, state: t.Optional[State]) -> str:
    """Return the authorities as lines for people."""
    if state is None:
        found = directory.authority().certificate
        return "signs and is trusted: %s\n" % _pki.common_name(t.cast("x509.Certificate", found))
    lines = []
    for name in state.trusted:
        certificate = certificate_of(directory, name)
        what = "signs and is trusted" if name == state.signing else "is trusted"
        end = _pki_records.format_time(_pki.not_after(certificate))
        lines.append("%s: %s (%s), until %s\n" % (what, _pki.common_name(certificate), name, end))
    return "".join(lines)


def take_step(
    directory: _pki_make.Directory, step: str, *, name: str, days: float, check_mode: bool
) -> t.Dict[str, t.Any]:
    """Take one step and return the module's result. The caller holds the directory's lock unless in check mode.

    Args:
        name: common name of the authority that ``add`` makes.
        days: its lifetime.

    Raises:
        Refused, Damaged, Malformed: it can't be taken; the text says why.
    """
    state = read_state(directory)
    # What a killed run decided and didn't carry out is carried out first.
    healed = bool(state) and not check_mode and materialise(directory, t.cast(State, state))
    before = describe(directory, state)
    wanted = decide(directory, state, step)
    result: t.Dict[str, t.Any] = {
        "changed": healed or wanted != state or wanted is None,
        "swept": [],
        "crl_renewed": "",
    }
    if check_mode:
        after = describe(directory, wanted) if wanted else before + "is trusted: %s, a new one\n" % name
    else:
        if wanted is None:
            wanted = _begin(directory, name, days)
        if wanted != state:
            value = {"signing": wanted.signing, "trusted": list(wanted.trusted)}
            _pki_files.write_json(directory.join("authorities", "state.json"), value)
            materialise(directory, wanted)
        result["swept"] = _sweep(directory, wanted)
        result["crl_renewed"] = _pki_make.crl_due(directory)
        if result["crl_renewed"]:
            _pki_make.renew_crl(directory)
        result["changed"] = result["changed"] or bool(result["swept"] or result["crl_renewed"])
        after = describe(directory, wanted)
    result["authorities"] = after.splitlines()
    if before != after:
        header = "authorities in %s" % directory.path
        result["diff"] = {"before": before, "after": after, "before_header": header, "after_header": header}
    return result
