# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a host, from files and commands."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_host as local
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_read as reading
from driver_support import KERNEL, NEWER, FakeHost

BLACKLIST = "/etc/modprobe.d/gpufleet-nvidia.conf"


def test_only_nvidias_display_and_3d_controllers_are_gpus(host: FakeHost) -> None:
    host.add_pci("0000:01:00.0", "0x2330", "0x030200", driver="nvidia")
    host.add_pci("0000:02:00.0", "0x2BB1", "0x030000")
    host.add_pci("0000:02:00.1", "0x22BC", "0x040300")
    host.add_pci("0000:05:00.0", "0x22a3", "0x068000")
    host.add_pci("0000:06:00.0", "0x1234", "0x030000", vendor="0x1234")
    assert [(g["pci_address"], g["pci_device_id"], g["driver"]) for g in reading.read_gpus(host)] == [
        ("0000:01:00.0", "2330", "nvidia"),
        ("0000:02:00.0", "2bb1", ""),
    ]
    assert reading.read_gpus(host)[0]["pci_subsystem"] == "10de:1626"
    assert reading.read_nvswitches(host) == [{"pci_address": "0000:05:00.0", "pci_device_id": "22a3"}]


def test_kernels_with_grub_without_and_with_loader_entries(host: FakeHost) -> None:
    assert reading.read_kernels(host) == {
        "running": KERNEL,
        "installed": [],
        "next_boot": KERNEL,
        "next_boot_source": "running",
        "has_modules": False,
    }
    host.files["/boot/vmlinuz-" + NEWER] = host.files["/boot/vmlinuz-" + KERNEL] = host.files["/boot/config-x"] = ""
    host.files["/lib/modules/%s/modules.dep" % NEWER] = ""
    kernels = reading.read_kernels(host)
    assert (kernels["next_boot"], kernels["next_boot_source"], kernels["has_modules"]) == (NEWER, "newest", True)
    assert kernels["installed"] == [KERNEL, NEWER]
    host.files["/boot/grub2/grub.cfg"] = "menuentry 'x' {\n linux /vmlinuz-%s\n}\n" % KERNEL
    assert reading.read_kernels(host)["next_boot"] == KERNEL
    host.files["/boot/loader/entries/a.conf"] = "linux /vmlinuz-%s\n" % NEWER
    host.files["/boot/loader/entries/README"] = "x"
    assert reading.read_kernels(host)["next_boot_source"] == "loader_entries"


def test_the_module_in_memory_and_on_disk_for_both_kernels(host: FakeHost) -> None:
    kernels = {"running": KERNEL, "next_boot": NEWER}
    module = reading.read_module(host, kernels)
    assert module == {
        "loaded": False,
        "version": None,
        "flavour": None,
        "references": None,
        "on_disk": {KERNEL: None, NEWER: None},
    }
    host.load("1.2.3", "proprietary")
    host.add_module(KERNEL, "1.2.3", licence="NVIDIA")
    host.add_module(NEWER, "1.2.4", name="nvidia-current", signer="DKMS")
    module = reading.read_module(host, kernels)
    assert (module["loaded"], module["version"], module["flavour"], module["references"]) == (
        True,
        "1.2.3",
        "proprietary",
        3,
    )
    assert module["on_disk"][KERNEL]["flavour"] == "proprietary"
    assert module["on_disk"][NEWER]["name"] == "nvidia-current"
    assert (module["on_disk"][NEWER]["signer"], module["on_disk"][NEWER]["sig_key"]) == ("DKMS", "5A:E8:01")
    assert reading.read_module_on_disk(host, "") is None
    host.answers.clear()
    assert reading.read_module_on_disk(host, KERNEL) is None


def test_dkms_present_absent_and_failing(host: FakeHost) -> None:
    assert reading.read_dkms(host) == {"installed": False, "modules": []}
    host.answers["dkms status"] = (0, "nvidia/1.2, %s, x86_64: installed\n" % KERNEL, "")
    assert reading.read_dkms(host)["modules"][0]["state"] == "installed"
    host.answers["dkms status"] = (1, "", "broken")
    assert reading.read_dkms(host) == {"installed": True, "modules": []}


@pytest.mark.parametrize(
    ("image_time", "blacklist_time", "listing", "inside", "opened"),
    [
        (None, None, "", None, False),
        (100.0, None, "usr/lib/modules/x/nouveau.ko\n", True, True),
        (100.0, None, "usr/lib/modules/x/virtio.ko\n", False, True),
        (100.0, 200.0, "kernel/drivers/nouveau.ko.xz\n", True, True),
        (300.0, 200.0, "kernel/drivers/nouveau.ko.xz\n", None, False),
    ],
)
def test_the_initramfs_is_opened_only_when_it_is_older_than_the_blacklist(
    host: FakeHost,
    image_time: float | None,
    blacklist_time: float | None,
    listing: str,
    inside: bool | None,
    opened: bool,
) -> None:
    image = "/boot/initrd.img-" + KERNEL
    host.answers["lsinitramfs " + image] = (0, listing, "")
    if image_time:
        host.times[image] = image_time
    if blacklist_time:
        host.times[BLACKLIST] = blacklist_time
    nouveau = reading.read_nouveau(host, KERNEL, BLACKLIST)
    assert nouveau["in_initramfs"] is inside
    assert bool(host.ran) is opened
    assert nouveau["forbidden"] is bool(blacklist_time)
    assert nouveau["initramfs"] == (image if image_time else "")


def test_dracuts_image_and_a_host_without_a_lister(host: FakeHost) -> None:
    image = "/boot/initramfs-%s.img" % KERNEL
    host.times[image] = 100.0
    host.files["/sys/module/nouveau/refcnt"] = "1"
    assert reading.read_nouveau(host, KERNEL, BLACKLIST)["in_initramfs"] is None
    host.answers["lsinitrd " + image] = (0, "x/nouveau.ko.xz", "")
    assert reading.read_nouveau(host, KERNEL, BLACKLIST) == {
        "loaded": True,
        "forbidden": False,
        "initramfs": image,
        "in_initramfs": True,
    }


def test_secure_boot_off_and_absent(host: FakeHost) -> None:
    assert reading.read_secure_boot(host)["state"] == "unsupported"
    host.files[reading.SECURE_BOOT] = "\x06\0\0\0\0"
    found = reading.read_secure_boot(host)
    assert (found["state"], found["enforced"], found["certificates"]) == ("disabled", False, [])
    assert host.ran == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (reading.SECURE_BOOT, "\x06\0\0\0\x01"),
        ("/sys/module/module/parameters/sig_enforce", "Y\n"),
        ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
    ],
)
def test_what_makes_the_kernel_insist_on_signatures(host: FakeHost, path: str, text: str) -> None:
    host.files[path] = text
    assert reading.read_secure_boot(host)["enforced"] is True


def test_certificates_are_read_where_signatures_count(host: FakeHost) -> None:
    host.files[reading.SECURE_BOOT] = "\x06\0\0\0\x01"
    host.files["/sys/kernel/security/lockdown"] = "[none] integrity confidentiality\n"
    host.files["/proc/keys"] = "1 I--- 1 perm 1f030000 0 0 asymmetri Vendor CA: aa11: X509.rsa aa11 []\n"
    host.files["/var/lib/dkms/mok.pub"] = "binary"
    found = reading.read_secure_boot(host)
    assert [k["source"] for k in found["certificates"]] == ["kernel"]
    assert found["signing_certificate"] == {"path": "/var/lib/dkms/mok.pub", "enrolled": None}
    host.answers["mokutil --list-enrolled"] = (0, "[key 1]\nSerial Number: 5 (0x5)\nSubject: CN=DKMS\n", "")
    host.answers["mokutil --test-key *"] = (1, "/var/lib/dkms/mok.pub is already enrolled\n", "")
    found = reading.read_secure_boot(host)
    assert [k["name"] for k in found["certificates"]] == ["DKMS", "Vendor CA"]
    assert found["signing_certificate"]["enrolled"] is True
    host.answers["mokutil --test-key *"] = (0, "/var/lib/dkms/mok.pub is not enrolled\n", "")
    assert reading.read_secure_boot(host)["signing_certificate"]["enrolled"] is False


def test_clients_are_named_with_their_unit(host: FakeHost) -> None:
    host.links["/proc/40/fd/3"] = "/dev/nvidiactl"
    host.links["/proc/40/fd/4"] = "/dev/nvidia0"
    host.links["/proc/40/fd/5"] = "/dev/null"
    host.links["/proc/41/fd/1"] = "/dev/null"
    host.links["/proc/self/fd/1"] = "/dev/nvidia0"
    host.files["/proc/40/cgroup"] = "0::/system.slice/vllm@m-a.service\n"
    host.files["/proc/40/comm"] = "vllm\n"
    assert reading.read_clients(host) == [
        {"pid": 40, "name": "vllm", "unit": "vllm@m-a.service", "devices": ["/dev/nvidia0", "/dev/nvidiactl"]}
    ]


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ([], "absent"),
        (["/usr/bin/cloud-init", "/run/cloud-init/disabled"], "disabled"),
        (["/usr/bin/cloud-init", "/etc/cloud/cloud-init.disabled"], "disabled"),
        (["/usr/bin/cloud-init", "/run/cloud-init/result.json"], "done"),
        (["/usr/bin/cloud-init", "/run/cloud-init/status.json"], "running"),
        (["/usr/bin/cloud-init"], "disabled"),
    ],
)
def test_cloud_init(host: FakeHost, files: list[str], state: str) -> None:
    host.files.update(dict.fromkeys(files, ""))
    assert reading.read_cloud_init(host) == state


def test_packages_of_both_managers(host: FakeHost) -> None:
    host.answers["dpkg-query *"] = (
        0,
        "nvidia-smi\t1.2-1\tinstalled\nlibnvidia-ml1\t1.2-1\tconfig-files\nbash\t5\tinstalled\nodd\n",
        "",
    )
    assert reading.read_packages(host) == {"nvidia-smi": "1.2-1"}
    host.answers = {"rpm -qa *": (0, "kernel-core\t5.14-1\tinstalled\nbash\t5\tinstalled\n", "")}
    assert reading.read_packages(host) == {"kernel-core": "5.14-1"}


def test_sources_name_their_urls(host: FakeHost) -> None:
    host.files["/etc/apt/sources.list.d/cuda.list"] = (
        "# deb https://old/\ndeb [signed-by=/x.gpg] https://a.example/b/ /\n"
    )
    host.files["/etc/apt/sources.list.d/empty.list"] = "\n"
    host.files["/etc/apt/sources.list.d/off.disabled"] = "deb https://a.example/b/ /\n"
    host.files["/etc/yum.repos.d/x.repo"] = "[x]\nbaseurl=file:///srv/repo/\n"
    assert reading.read_sources(host) == {
        "/etc/apt/sources.list.d/cuda.list": ["https://a.example/b"],
        "/etc/yum.repos.d/x.repo": ["file:///srv/repo"],
    }


def test_the_whole_record(host: FakeHost) -> None:
    host.files.update({"/usr/bin/dockerd": "", "/usr/bin/nvidia-uninstall": "", "/run/reboot-required": ""})
    host.files.update({"/etc/cdi/nvidia.yaml": "x", "/etc/cdi/other.yaml": "x", "/lib/here": "a"})
    found = reading.read_state(host, blacklist=BLACKLIST, files=["/lib/here", "/lib/gone"])
    assert (found["platform"], found["runtimes"], found["runfile"], found["reboot_pending"]) == (
        "debian12",
        ["docker"],
        True,
        True,
    )
    assert found["cdi_specs"] == ["/etc/cdi/nvidia.yaml"]
    assert found["files"]["/lib/gone"] is None and len(found["files"]["/lib/here"]) == 64


def test_this_very_host(tmp_path: object) -> None:
    here = local.LocalDriverHost()
    assert here.bytes("/etc/os-release") and here.modified("/etc/os-release")
    assert here.bytes("%s/gone" % tmp_path) is None and here.modified("%s/gone" % tmp_path) is None
    assert reading.read_state(here, blacklist=BLACKLIST)["kernel"]["running"] == here.machine()["kernel"]
