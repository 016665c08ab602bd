# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Which kernel boots next, and what a kernel module's signature is worth: parsers of text, no I/O."""

from __future__ import annotations

import re
import typing as t


class MenuEntry(t.NamedTuple):
    """One entry of a boot menu.

    Attributes:
        title: what a person sees.
        identifier: ``--id`` or ``$menuentry_id_option``, empty without one.
        kernel: path of the kernel it loads, empty for a submenu.
        entries: what a submenu holds.
    """

    title: str
    identifier: str
    kernel: str
    entries: t.Tuple[t.Any, ...]


_ENTRY = re.compile(r"^\s*(menuentry|submenu)\s+(['\"])(.*?)\2(.*)\{\s*$")
_ENTRY_ID = re.compile(r"(?:\$menuentry_id_option|--id)[ =]+['\"]?([^'\" {]+)")
_LINUX = re.compile(r"^\s*linux(?:efi|16)?\s+(\S+)")
_DEFAULT = re.compile(r"^\s*set\s+default=['\"]?([^'\"\s]*(?: [^'\"]*)?)['\"]?\s*$")
_KERNEL_FILE = re.compile(r"^(?:vmlinuz|vmlinux|linux|kernel)-(.+)$")


def parse_grub(text: str) -> t.Tuple[MenuEntry, ...]:
    """Return the menu of a grub.cfg."""
    stack: t.List[t.Dict[str, t.Any]] = [{"kind": "menu", "entries": []}]
    for line in text.splitlines():
        stripped = line.strip()
        entry = _ENTRY.match(line)
        if entry:
            identifier = _ENTRY_ID.search(entry.group(4))
            stack.append(
                {
                    "kind": entry.group(1),
                    "title": entry.group(3),
                    "id": identifier.group(1) if identifier else "",
                    "kernel": "",
                    "entries": [],
                }
            )
        elif stripped.endswith("{"):
            stack.append({"kind": "block", "entries": []})
        elif stripped == "}" and len(stack) > 1:
            closed = stack.pop()
            if closed["kind"] == "block":
                stack[-1]["entries"].extend(closed["entries"])
            else:
                stack[-1]["entries"].append(
                    MenuEntry(closed["title"], closed["id"], closed["kernel"], tuple(closed["entries"]))
                )
        else:
            linux = _LINUX.match(line)
            if linux and stack[-1]["kind"] == "menuentry" and not stack[-1]["kernel"]:
                stack[-1]["kernel"] = linux.group(1)
    return tuple(stack[0]["entries"])


def parse_grubenv(text: str) -> t.Dict[str, str]:
    """Return grub's environment block."""
    values: t.Dict[str, str] = {}
    for line in text.splitlines():
        key, sep, value = line.partition("=")
        if sep and not line.startswith("#"):
            values[key.strip()] = value
    return values


def grub_default(config: str, environment: t.Mapping[str, str]) -> str:
    """Return what grub boots next, as it is written there: an index, an identifier, a title, or a path of them by >."""
    if environment.get("next_entry"):
        return environment["next_entry"]
    chosen = "0"
    for line in config.splitlines():
        match = _DEFAULT.match(line)
        if match and "next_entry" not in match.group(1):
            chosen = match.group(1)
    if "saved_entry" in chosen:
        chosen = environment.get("saved_entry", "")
    return chosen or "0"


def choose_entry(menu: t.Sequence[MenuEntry], default: str) -> t.Optional[MenuEntry]:
    """Return the entry that a default names, None where it names none; a submenu stands for its first entry."""
    entries: t.Sequence[MenuEntry] = menu
    chosen: t.Optional[MenuEntry] = None
    for part in default.split(">"):
        chosen = None
        if part.isdigit() and int(part) < len(entries):
            chosen = entries[int(part)]
        for entry in entries:
            if chosen is None and part in (entry.identifier, entry.title):
                chosen = entry
        if chosen is None:
            return None
        entries = chosen.entries
    while chosen is not None and chosen.entries:
        chosen = chosen.entries[0]
    return chosen


def kernel_of_path(path: str) -> str:
    """Return the version in a kernel's file name: ``/boot/vmlinuz-6.1.0-50-amd64`` is ``6.1.0-50-amd64``."""
    match = _KERNEL_FILE.match(path.rsplit("/", 1)[-1])
    return match.group(1) if match else ""


def version_key(version: str) -> t.Tuple[t.Tuple[int, t.Any], ...]:
    """Return a key that sorts kernel versions, numbers as numbers and before words."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"\d+|[a-zA-Z]+", version))


def next_boot(
    *,
    grub: t.Optional[str],
    environment: str,
    loader_entries: t.Mapping[str, str],
    installed: t.Sequence[str],
    running: str,
) -> t.Dict[str, str]:
    """Return ``{kernel, source}`` of the next boot.

    Args:
        grub: content of grub.cfg, None without one.
        environment: content of grubenv.
        loader_entries: content of ``/boot/loader/entries/<name>.conf`` by name without ``.conf``, as RHEL writes them.
        installed: versions of the kernels in /boot.
        running: version of the running kernel.

    ``source`` says how it is known: ``grub``, ``loader_entries``, ``newest`` (the newest in /boot: what a boot menu
    takes that wasn't told otherwise), or ``running`` where there is no kernel in /boot.
    """
    block = parse_grubenv(environment)
    if loader_entries:
        kernels = {}
        for name, text in loader_entries.items():
            for line in text.splitlines():
                fields = line.split()
                if len(fields) > 1 and fields[0] in ("linux", "version") and name not in kernels:
                    kernels[name] = kernel_of_path(fields[1]) if fields[0] == "linux" else fields[1]
        wanted = block.get("next_entry") or block.get("saved_entry") or ""
        if kernels.get(wanted):
            return {"kernel": kernels[wanted], "source": "loader_entries"}
        known = sorted((kernel for kernel in kernels.values() if kernel), key=version_key)
        if known:
            return {"kernel": known[-1], "source": "loader_entries"}
    if grub:
        entry = choose_entry(parse_grub(grub), grub_default(grub, block))
        kernel = kernel_of_path(entry.kernel) if entry else ""
        if kernel:
            return {"kernel": kernel, "source": "grub"}
    if installed:
        return {"kernel": sorted(installed, key=version_key)[-1], "source": "newest"}
    return {"kernel": running, "source": "running"}


# -- signatures --------------------------------------------------------------------------------------------------------


def _hexadecimal(text: str) -> str:
    """Return hexadecimal digits alone, without leading zeros, in lower case."""
    return re.sub(r"[^0-9a-f]", "", text.lower()).lstrip("0")


def parse_mokutil(text: str, source: str = "mok") -> t.List[t.Dict[str, str]]:
    """Return the certificates of ``mokutil --list-enrolled``: ``{name, serial, key_id, source}`` each."""
    keys: t.List[t.Dict[str, str]] = []
    for block in re.split(r"(?m)^\[key \d+\]\s*$", text)[1:]:
        serial = re.search(r"Serial Number:\s*(?:\d+ \(0x([0-9a-fA-F]+)\)|((?:[0-9a-fA-F]{2}:)*[0-9a-fA-F]{2}))", block)
        name = re.search(r"(?m)^\s*Subject:.*?CN\s*=\s*(.+?)\s*(?:,\s*\w+\s*=.*)?$", block)
        key_id = re.search(r"Subject Key Identifier:\s*\n\s*([0-9A-Fa-f:]+)", block)
        keys.append(
            {
                "name": name.group(1).strip('"') if name else "",
                "serial": _hexadecimal(serial.group(1) or serial.group(2)) if serial else "",
                "key_id": _hexadecimal(key_id.group(1)) if key_id else "",
                "source": source,
            }
        )
    return keys


def parse_proc_keys(text: str) -> t.List[t.Dict[str, str]]:
    """Return the X.509 certificates the kernel holds, by /proc/keys: ``{name, serial: "", key_id, source}`` each."""
    found = re.findall(r"(?m)\sasymmetri\w*\s+(.+?): ([0-9a-f]+): X509", text)
    return [{"name": name, "serial": "", "key_id": _hexadecimal(key), "source": "kernel"} for name, key in found]


def is_trusted(module: t.Mapping[str, t.Any], keys: t.Sequence[t.Mapping[str, str]]) -> bool:
    """Tell whether one of the enrolled certificates signed a module.

    A module carries its certificate's serial number (``sig_key``) and name (``signer``). The number decides where a
    certificate of that name shows one, since every host's DKMS key has the same name; the kernel's own certificates
    show none in /proc/keys, and are told by name.
    """
    serial = _hexadecimal(str(module.get("sig_key") or ""))
    if serial and any(serial in (key["serial"], key["key_id"]) for key in keys):
        return True
    named = [key for key in keys if key["name"] and key["name"] == module.get("signer")]
    return bool(named) and not any(key["serial"] for key in named)


def parse_modinfo(text: str) -> t.Dict[str, str]:
    """Return the first value of each field of ``modinfo``."""
    fields: t.Dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r"^(\w+):\s*(.*)$", line)
        if match:
            fields.setdefault(match.group(1), match.group(2).strip())
    return fields


def flavour_of_license(text: str) -> t.Optional[str]:
    """Return ``open`` or ``proprietary`` by a kernel module's licence; the open modules are dual MIT and GPL."""
    if not text:
        return None
    return "open" if "GPL" in text else "proprietary"


def flavour_of_banner(text: str) -> t.Optional[str]:
    """Return the flavour of the loaded module by /proc/driver/nvidia/version."""
    if "NVRM version" not in text:
        return None
    return "open" if "Open Kernel Module" in text else "proprietary"


def version_of_banner(text: str) -> t.Optional[str]:
    """Return the loaded driver's version by /proc/driver/nvidia/version."""
    match = re.search(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return match.group(1) if match else None


def parse_dkms(text: str) -> t.List[t.Dict[str, str]]:
    """Return what ``dkms status`` says of NVIDIA's modules: ``{module, version, kernel, architecture, state}`` each.

    DKMS 3 writes ``nvidia/1.2, 6.1.0-50-amd64, x86_64: installed``, DKMS 2 ``nvidia, 1.2, 6.1…``; a module that was
    added but built for no kernel has neither kernel nor architecture.
    """
    modules = []
    for line in text.splitlines():
        name, sep, state = line.partition(":")
        fields = [field.strip() for field in name.replace("/", ",", 1).split(",")]
        if not sep or not fields[0].startswith("nvidia") or len(fields) not in (2, 4):
            continue
        kernel, architecture = fields[2:] if len(fields) == 4 else ("", "")
        modules.append(
            {
                "module": fields[0],
                "version": fields[1],
                "kernel": kernel,
                "architecture": architecture,
                "state": (state.split() or [""])[0],
            }
        )
    return modules
