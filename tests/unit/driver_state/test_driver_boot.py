# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel that boots next, and the worth of a signature, from texts as the tools write them."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_boot as boot
from driver_support import KERNEL, NEWER

GRUB = """
set timeout=5
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set boot_once=true
else
   set default="%s"
fi
function load_video {
  insmod all_video
}
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
        load_video
        linux   /boot/vmlinuz-6.1.0-56-amd64 root=UUID=1 ro quiet
        initrd  /boot/initrd.img-6.1.0-56-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-1' {
        menuentry 'Debian GNU/Linux, with Linux 6.1.0-56-amd64' $menuentry_id_option 'gnulinux-56' {
                linux /boot/vmlinuz-6.1.0-56-amd64 root=UUID=1
        }
        menuentry "Debian GNU/Linux, with Linux 6.1.0-50-amd64" --id gnulinux-50 {
                linux /boot/vmlinuz-6.1.0-50-amd64 root=UUID=1
        }
}
menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
        fwsetup
}
"""


@pytest.mark.parametrize(
    ("default", "environment", "expected"),
    [
        ("0", "", NEWER),
        ("1>1", "", KERNEL),
        ("gnulinux-advanced-1>gnulinux-50", "", KERNEL),
        ("Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-50-amd64", "", KERNEL),
        ("1", "", NEWER),
        ("${saved_entry}", "saved_entry=gnulinux-advanced-1>gnulinux-50\n", KERNEL),
        ("${saved_entry}", "", NEWER),
        ("0", "# GRUB Environment Block\nnext_entry=1>1\n#####", KERNEL),
    ],
)
def test_grub_says_which_kernel_boots_next(default: str, environment: str, expected: str) -> None:
    following = boot.next_boot(
        grub=GRUB % default, environment=environment, loader_entries={}, installed=[KERNEL, NEWER], running=KERNEL
    )
    assert following == {"kernel": expected, "source": "grub"}


@pytest.mark.parametrize("default", ["9", "no-such-entry", "uefi-firmware", "1>9"])
def test_a_default_that_names_no_kernel_leaves_the_newest(default: str) -> None:
    following = boot.next_boot(
        grub=GRUB % default, environment="", loader_entries={}, installed=["6.1.0-9-amd64", KERNEL], running="x"
    )
    assert following == {"kernel": KERNEL, "source": "newest"}


def entry(kernel: str) -> str:
    return "title Rocky Linux\nversion %s\nlinux /vmlinuz-%s\ninitrd /initramfs-%s.img $tuned_initrd\n" % (
        (kernel,) * 3
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ("saved_entry=m-5.14.0-1.el9.x86_64\n", "5.14.0-1.el9.x86_64"),
        ("saved_entry=m-5.14.0-1.el9.x86_64\nnext_entry=m-5.14.0-20.el9.x86_64\n", "5.14.0-20.el9.x86_64"),
        ("saved_entry=gone\n", "5.14.0-20.el9.x86_64"),
        ("", "5.14.0-20.el9.x86_64"),
    ],
)
def test_loader_entries_say_which_kernel_boots_next(environment: str, expected: str) -> None:
    entries = {"m-" + kernel: entry(kernel) for kernel in ("5.14.0-1.el9.x86_64", "5.14.0-20.el9.x86_64")}
    following = boot.next_boot(
        grub="blscfg", environment=environment, loader_entries=entries, installed=[], running="5.14.0-1.el9.x86_64"
    )
    assert following == {"kernel": expected, "source": "loader_entries"}


def test_entries_that_name_no_kernel_are_left_out() -> None:
    following = boot.next_boot(
        grub=None, environment="", loader_entries={"x": "title x\nlinux /odd\n"}, installed=[], running=KERNEL
    )
    assert following == {"kernel": KERNEL, "source": "running"}


def test_numbers_sort_as_numbers() -> None:
    kernels = ["6.1.0-100-amd64", "6.1.0-50-amd64", "6.12.1+deb13-amd64", "6.1.0-9-amd64"]
    assert sorted(kernels, key=boot.version_key) == [
        "6.1.0-9-amd64",
        "6.1.0-50-amd64",
        "6.1.0-100-amd64",
        "6.12.1+deb13-amd64",
    ]


MOKUTIL = """[key 1]
SHA1 Fingerprint: 53:61:0c:f8:1f:bd:7e:0c
Certificate:
    Data:
        Version: 3 (0x2)
        Serial Number: 1 (0x1)
        Issuer: CN=Debian Secure Boot CA
        Subject: CN=Debian Secure Boot CA
            X509v3 Subject Key Identifier:
                6C:CE:CE:7E:4C:6C:0D:1F

[key 2]
SHA1 Fingerprint: 00:11
Certificate:
    Data:
        Serial Number:
            5a:e8:01
        Subject: C=XX, CN=DKMS module Signing Key, O=host
[key 3]
nothing of use
"""


def test_certificates_of_mokutil() -> None:
    keys = boot.parse_mokutil(MOKUTIL)
    assert [(key["name"], key["serial"], key["key_id"]) for key in keys] == [
        ("Debian Secure Boot CA", "1", "6ccece7e4c6c0d1f"),
        ("DKMS module Signing Key", "5ae801", ""),
        ("", "", ""),
    ]


def test_certificates_of_the_kernel() -> None:
    text = (
        "3b0c6d9e I------ 1 perm 1f030000 0 0 asymmetri Debian Secure Boot CA: 6ccece7e4c6c: X509.rsa 4c6c []\n"
        "3b0c6d9f I------ 1 perm 1f030000 0 0 keyring   .builtin_trusted_keys: 1\n"
    )
    assert boot.parse_proc_keys(text) == [
        {"name": "Debian Secure Boot CA", "serial": "", "key_id": "6ccece7e4c6c", "source": "kernel"}
    ]


def key(name: str = "", serial: str = "", key_id: str = "") -> dict[str, str]:
    return {"name": name, "serial": serial, "key_id": key_id, "source": "mok"}


@pytest.mark.parametrize(
    ("module", "keys", "trusted"),
    [
        ({"signer": "DKMS", "sig_key": "5A:E8:01"}, [key("DKMS", "5ae801")], True),
        ({"signer": "DKMS", "sig_key": "5A:E8:01"}, [key("DKMS", "99")], False),
        ({"signer": "Canonical", "sig_key": "00:AA"}, [key("Canonical", "", "bb")], True),
        ({"signer": "Canonical", "sig_key": "00:AA"}, [key("Other", "", "aa")], True),
        ({"signer": "", "sig_key": ""}, [key("", "1")], False),
        ({"signer": "DKMS", "sig_key": ""}, [], False),
    ],
)
def test_a_signature_is_trusted_by_number_and_only_then_by_name(
    module: dict[str, str], keys: list[dict[str, str]], trusted: bool
) -> None:
    assert boot.is_trusted(module, keys) is trusted


@pytest.mark.parametrize(
    ("text", "version", "flavour"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.1.2  Sat\nGCC version: 12", "535.1.2", "proprietary"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.1.2  Release Build", "580.1.2", "open"),
        ("", None, None),
    ],
)
def test_the_loaded_module_by_its_banner(text: str, version: str | None, flavour: str | None) -> None:
    assert boot.version_of_banner(text) == version
    assert boot.flavour_of_banner(text) == flavour


@pytest.mark.parametrize(("text", "flavour"), [("Dual MIT/GPL", "open"), ("NVIDIA", "proprietary"), ("", None)])
def test_the_module_on_disk_by_its_licence(text: str, flavour: str | None) -> None:
    assert boot.flavour_of_license(text) == flavour


def test_dkms_of_both_ages() -> None:
    text = (
        "nvidia/1.2, 6.1.0-50-amd64, x86_64: installed (WARNING! Diff between built and installed module!)\n"
        "nvidia-current, 1.2, 6.1.0-56-amd64, x86_64: built\n"
        "nvidia/1.3: added\n"
        "zfs/2.1, 6.1.0-50-amd64, x86_64: installed\n"
        "nvidia/broken\n"
        "nvidia/1, 2, 3, 4, 5: odd\n"
    )
    found = [(m["module"], m["version"], m["kernel"], m["state"]) for m in boot.parse_dkms(text)]
    assert found == [
        ("nvidia", "1.2", "6.1.0-50-amd64", "installed"),
        ("nvidia-current", "1.2", "6.1.0-56-amd64", "built"),
        ("nvidia", "1.3", "", "added"),
    ]


def test_the_first_value_of_a_field_counts() -> None:
    text = "filename: /x\nalias: a\nalias: b\n  indented: no\nnovalue\n"
    fields: t.Dict[str, str] = boot.parse_modinfo(text)
    assert fields == {"filename": "/x", "alias": "a"}
