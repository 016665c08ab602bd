# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts with GPUs, and a release with Debian's own driver, for the tests of the plan."""

from __future__ import annotations

# A release whose driver is that of Debian's own archive: data only, in the shape of releases/<id>.yml.
DEBIAN_ARCHIVE = {
    "driver": {"branch": "535", "version": "535.261.03", "default_flavour": "proprietary"},
    "cuda": {"version": "12.2", "minimum_driver": "535.54.03", "minimum_compute_capability": "5.0"},
    "package_set": {
        "version": "{version}-1",
        "packages": {
            "open": {
                "compute": ["nvidia-kernel-open-dkms", "libcuda1", "nvidia-smi"],
                "full": ["nvidia-driver", "nvidia-kernel-open-dkms"],
            },
            "proprietary": {
                "compute": ["nvidia-kernel-dkms", "libcuda1", "nvidia-smi"],
                "full": ["nvidia-driver", "nvidia-kernel-dkms"],
            },
        },
        "fabric_manager": {"nvswitch": None, "nvlink5": None},
        "companions": [{"name": "nvidia-persistenced", "version": "535.171.04-1~deb12u1"}],
        "pinned": ["libcuda1", "libnvidia-ml1", "nvidia-driver", "nvidia-kernel-*", "nvidia-smi"],
        "build": ["linux-headers-{kernel}"],
    },
}


def gpus(*device_ids):
    """Return GPUs as a host reports them."""
    return [
        {"pci_address": "0000:%02x:00.0" % number, "pci_device_id": device_id, "pci_subsystem": "10de:0000"}
        for number, device_id in enumerate(device_ids, 1)
    ]


def host(*device_ids, platform="debian12", **more):
    """Return a host with GPUs."""
    return {
        "platform": platform,
        "architecture": "x86_64",
        "kernel": "6.1.0-50-amd64",
        "gpus": gpus(*device_ids),
        **more,
    }
