# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What a host's state means for the driver that is wanted: decisions over records, no I/O.

``before`` says what stands in the way of installing; ``after`` whether what was installed will load, now and after the
next boot. The record is ``_driver_state_read.read_state``'s, the plan the filter gpu_stack_plan's.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_boot as boot
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_files
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding

Record = t.Mapping[str, t.Any]
Plan = t.Mapping[str, t.Any]

BUILD_LOG = "/var/lib/dkms/<module>/<version>/build/make.log"


def before(record: Record, plan: Plan, given_gpus: t.Sequence[t.Any]) -> t.List[Finding]:
    """Return what stands in the way of installing the plan's driver on this host.

    Args:
        record: the host.
        plan: the GPU stack's plan; its own findings aren't repeated here.
        given_gpus: GPUs that the inventory names instead of those on the PCI bus.
    """
    findings = [_gpu_present(record, given_gpus), _runfile(record), _cloud_init(record)]
    return findings + _signing_certificate(record, plan)


def _gpu_present(record: Record, given: t.Sequence[t.Any]) -> Finding:
    on_bus = ", ".join("%s [%s]" % (gpu["pci_address"], gpu["pci_device_id"]) for gpu in record["gpus"])
    remedy = (
        "Take the host out of the GPU group, or look for the card (lspci -d 10de:); to prepare a disk for another "
        "machine, name its GPUs in nvidia_driver_gpus."
    )
    found = on_bus or "none"
    if given and not on_bus:
        found = "none; nvidia_driver_gpus names %d, so the driver is installed and can't be loaded here" % len(given)
    return finding(
        "driver.gpu",
        bool(on_bus or given),
        expected="an NVIDIA GPU on the PCI bus",
        found=found,
        detail="Display and 3D controllers of vendor 10de in /sys/bus/pci/devices.",
        remedy="" if on_bus or given else remedy,
    )


def _runfile(record: Record) -> Finding:
    return finding(
        "driver.runfile",
        not record["runfile"],
        expected="no driver installed by NVIDIA's .run file",
        found="nvidia-uninstall" if record["runfile"] else "none",
        detail="Its files lie where the packages put theirs, and the package manager doesn't know them.",
        remedy="Run nvidia-uninstall on the host, then run again." if record["runfile"] else "",
    )


def _cloud_init(record: Record) -> Finding:
    running = record["cloud_init"] == "running"
    return finding(
        "driver.cloud_init",
        not running,
        severity="warning",
        expected="cloud-init absent or done",
        found=record["cloud_init"],
        detail="It installs packages itself; the packages wait for it with a limit.",
        remedy="cloud-init status --wait" if running else "",
    )


def sources(record: Record, repositories: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[Finding]:
    """Return whether another source file of the host names one of the repositories that the roles write a file for."""
    findings = []
    for repository in repositories:
        url, own = repository["url"].rstrip("/"), _driver_state_files.source_path(repository)
        others = [path for path, urls in sorted(record["sources"].items()) if url in urls and path != own]
        findings.append(
            finding(
                "driver.repository.%s" % repository["id"],
                not others,
                expected="%s in no source file but the collection's" % url,
                found=", ".join(others) or "none",
                detail="Two source files of one repository with different keys make the package manager refuse both.",
                remedy="Remove %s (the package cuda-keyring brings one: purge it)." % ", ".join(others)
                if others
                else "",
            )
        )
    return findings


def uses_dkms(plan: Plan) -> bool:
    """Tell whether the plan's kernel module is built on the host."""
    return any(
        "dkms" in package["name"] or "kernel-source" in package["name"] for package in plan["driver"]["packages"]
    )


def _signing_certificate(record: Record, plan: Plan) -> t.List[Finding]:
    """What is built here is signed with this host's own key, which the firmware must know before the next boot."""
    secure_boot = record["secure_boot"]
    if not secure_boot["enforced"] or not plan.get("driver") or not uses_dkms(plan):
        return []
    certificate = secure_boot["signing_certificate"]
    enrolled = bool(certificate and certificate["enrolled"])
    found = "no certificate yet: the first build makes one"
    if certificate:
        known = {True: "enrolled", False: "not enrolled", None: "not known whether enrolled (mokutil is missing)"}
        found = "%s, %s" % (certificate["path"], known[certificate["enrolled"]])
    return [
        finding(
            "driver.secure_boot.certificate",
            enrolled,
            severity="warning",
            expected="the certificate that DKMS signs with, enrolled",
            found=found,
            detail="Secure Boot is %s and unsigned modules are refused." % secure_boot["state"],
            remedy="" if enrolled else enrol_remedy(certificate["path"] if certificate else "/var/lib/dkms/mok.pub"),
        )
    ]


def enrol_remedy(path: str) -> str:
    """Return how a person enrols a certificate."""
    return (
        "mokutil --import %s, set a one-time password, reboot, and confirm on the machine's console (Enroll MOK); or "
        "install modules that the distribution has signed; or turn Secure Boot off in the firmware." % path
    )


# -- after installing --------------------------------------------------------------------------------------------------


def after(record: Record, wanted: t.Mapping[str, t.Any]) -> t.List[Finding]:
    """Return whether the installed driver will load at the next boot.

    Args:
        record: the host, read after installing.
        wanted: ``{version, flavour}``.
    """
    kernel = record["kernel"]["next_boot"]
    if record["kernel"]["next_boot_source"] == "running" and not record["kernel"]["has_modules"]:
        return [
            finding(
                "driver.next_boot.module",
                not record["gpus"],
                severity="warning",
                expected="a kernel of this host's own",
                found="none in /boot, and no modules of %s in /lib/modules" % kernel,
                detail="Nothing can be said of the next boot: this host runs another system's kernel.",
                remedy="Install a kernel, or manage the driver where the kernel is." if record["gpus"] else "",
            )
        ]
    return [_module_for(record, wanted, kernel), *_flavour_for(record, wanted, kernel), *_signature_for(record, kernel)]


def _module_for(record: Record, wanted: t.Mapping[str, t.Any], kernel: str) -> Finding:
    module = record["module"]["on_disk"].get(kernel)
    built = ["%(module)s/%(version)s %(state)s" % m for m in record["dkms"]["modules"] if m["kernel"] in (kernel, "")]
    found = "%s in %s" % (module["version"], module["path"]) if module else "no module"
    if built:
        found += "; DKMS: " + ", ".join(built)
    fits = bool(module) and module["version"] == wanted["version"]
    return finding(
        "driver.next_boot.module",
        fits,
        expected="version %s for kernel %s" % (wanted["version"], kernel),
        found=found,
        detail="The kernel that boots next, known by %s." % record["kernel"]["next_boot_source"],
        remedy=""
        if fits
        else "Install the headers of %s, then dkms autoinstall -k %s; what failed is in %s. Until then a reboot "
        "leaves this host without its GPUs." % (kernel, kernel, BUILD_LOG),
    )


def _flavour_for(record: Record, wanted: t.Mapping[str, t.Any], kernel: str) -> t.List[Finding]:
    module = record["module"]["on_disk"].get(kernel)
    if not module or not module["flavour"] or wanted.get("flavour") not in ("open", "proprietary"):
        return []
    fits = module["flavour"] == wanted["flavour"]
    return [
        finding(
            "driver.next_boot.flavour",
            fits,
            expected=wanted["flavour"],
            found=module["flavour"],
            detail="By the licence of %s." % module["path"],
            remedy="" if fits else "Remove the packages of the other flavour; dkms status names what was built.",
        )
    ]


def _signature_for(record: Record, kernel: str) -> t.List[Finding]:
    module, secure_boot = record["module"]["on_disk"].get(kernel), record["secure_boot"]
    if not module or not secure_boot["enforced"]:
        return []
    trusted = boot.is_trusted(module, secure_boot["certificates"])
    certificate = secure_boot["signing_certificate"]
    return [
        finding(
            "driver.next_boot.signature",
            trusted,
            expected="signed by an enrolled certificate",
            found="signed by %s [%s]" % (module["signer"], module["sig_key"]) if module["signer"] else "not signed",
            detail="Secure Boot is %s: the kernel refuses %s, and the driver would not load."
            % (secure_boot["state"], module["path"])
            if not trusted
            else module["path"],
            remedy="" if trusted else enrol_remedy(certificate["path"] if certificate else "/var/lib/dkms/mok.pub"),
        )
    ]
