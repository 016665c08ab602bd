# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys by their fingerprint, files as texts, and the plan of one host with all reasons to refuse."""

from __future__ import annotations

import base64
import hashlib
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_files as files
from ansible_collections.gpufleet.llm.plugins.module_utils import _driver_state_plan as planning
from ansible_collections.gpufleet.llm.plugins.module_utils import _release as releasing
from ansible_collections.gpufleet.llm.plugins.module_utils import _repository_key as keys
from driver_support import record

BODY = b"\x04\x00\x00\x00\x01\x01" + b"\x00\x08\xff" + b"\x00\x08\x03"
FINGERPRINT = hashlib.sha1(b"\x99" + len(BODY).to_bytes(2, "big") + BODY).hexdigest().upper()
KEY = b"\x99" + len(BODY).to_bytes(2, "big") + BODY
USER = b"\xb4\x01x"
RELEASE: dict[str, t.Any] = releasing.load(
    releasing.COLLECTION_RELEASES, releasing.known_ids(releasing.COLLECTION_RELEASES)[-1]
)


@pytest.mark.parametrize(
    "data",
    [
        KEY + USER,
        keys.armor(KEY + USER),
        keys.armor(KEY).replace(b"\n\n", b"\nVersion: x\n\n").replace(b"\n-----END", b"\n=abcd\n-----END"),
        keys.armor(KEY).replace(b"\n", b"\r\n"),
        b"\xc6" + bytes([len(BODY)]) + BODY,
        b"\xc6\xff" + len(BODY).to_bytes(4, "big") + BODY,
        b"\x98" + bytes([len(BODY)]) + BODY,
        b"\x9a" + len(BODY).to_bytes(4, "big") + BODY,
    ],
)
def test_a_fingerprint_in_every_form_of_a_packet(data: bytes) -> None:
    assert keys.fingerprints(data) == [FINGERPRINT]


def test_a_long_body_has_a_length_of_two_octets() -> None:
    body = BODY + b"\x00" * 300
    length = len(body) - 192
    data = b"\xc6" + bytes([192 + (length >> 8), length & 0xFF]) + body
    assert keys.fingerprints(data) == [hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()]


def test_version_6_has_its_own_rule() -> None:
    body = b"\x06" + BODY[1:]
    expected = hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    assert keys.fingerprints(b"\xc6" + bytes([len(body)]) + body) == [expected]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no OpenPGP public key"),
        (USER, "holds no OpenPGP public key"),
        (b"<html>", "begins no OpenPGP packet"),
        (KEY[:-1], "ends within a packet"),
        (b"\xc6", "ends within a packet"),
        (b"\xc6\xe1" + BODY, "partial length"),
        (b"\x9b" + BODY, "has no length"),
        (b"\xc6\x01\x03", "a key of version 3"),
        (b"\xc6\x00", "a key of version 0"),
        (keys.armor(KEY).replace(b"\n\n", b"\n\n%%%"), "no base64"),
    ],
)
def test_what_is_no_key_says_why(data: bytes, said: str) -> None:
    with pytest.raises(keys.KeyFileError, match=said):
        keys.fingerprints(data)


def test_a_key_is_trusted_alone() -> None:
    spaced = " ".join(FINGERPRINT[i : i + 4] for i in range(0, 40, 4)).lower()
    assert keys.check(KEY, spaced, "x") == ""
    other = BODY + b"\x01"
    second = b"\x99" + len(other).to_bytes(2, "big") + other
    assert "and no other" in keys.check(KEY + second, FINGERPRINT, "x")
    assert "expected 00" in keys.check(KEY, "00" * 20, "https://x/key")
    assert "is no key" in keys.check(b"", FINGERPRINT, "x")


def test_the_form_follows_the_name() -> None:
    assert keys.for_path(keys.armor(KEY), "/x.gpg") == KEY
    armoured = keys.for_path(KEY, "/x.asc")
    assert base64.b64decode(b"".join(armoured.splitlines()[2:-1])) == KEY


# -- files


def repository(**changes: t.Any) -> dict[str, t.Any]:
    base = {
        "id": "cuda-x",
        "format": "apt",
        "url": "https://p.example/x/",
        "suite": "/",
        "components": [],
        "key_url": "https://p.example/x/k.pub",
        "key_path": "/etc/apt/keyrings/k.asc",
        "key_fingerprint": FINGERPRINT,
        "module_stream": None,
    }
    return dict(base, **changes)


def test_a_source_trusts_its_own_key_and_no_other() -> None:
    text = files.source_file(repository())["content"]
    assert text.splitlines()[1:] == [
        "Types: deb",
        "URIs: https://p.example/x/",
        "Suites: /",
        "Signed-By: /etc/apt/keyrings/k.asc",
    ]
    assert "Components: main contrib" in files.source_file(repository(components=["main", "contrib"]))["content"]
    dnf = files.source_file(repository(format="dnf"))
    assert dnf["dest"] == "/etc/yum.repos.d/gpufleet-cuda-x.repo"
    assert {"gpgcheck=1", "repo_gpgcheck=1", "gpgkey=file:///etc/apt/keyrings/k.asc"} <= set(
        dnf["content"].splitlines()
    )


def test_a_given_key_is_not_fetched() -> None:
    assert files.key(repository())["url"] == "https://p.example/x/k.pub"
    assert files.key(repository(), "armour") == {
        "path": "/etc/apt/keyrings/k.asc",
        "fingerprint": FINGERPRINT,
        "url": "",
        "content": "armour",
    }


def test_patterns_are_quoted_for_apt() -> None:
    text = files.unattended_file("x", ["nvidia-", 'a\\.b"'])["content"]
    assert text.splitlines()[1:] == [
        "Unattended-Upgrade::Package-Blacklist {",
        '  "nvidia-";',
        '  "a\\\\.b\\"";',
        "};",
    ]


def test_modules_stay_out_with_their_mode_setting() -> None:
    assert files.blacklist_file(["nouveau"])["content"].splitlines()[1:] == [
        "blacklist nouveau",
        "options nouveau modeset=0",
    ]


def test_one_repository_may_serve_both() -> None:
    both = {"repositories": [repository(), repository(id="container-toolkit-deb")]}
    assert [r["id"] for r in files.repositories_of(both, "driver")] == ["cuda-x"]
    assert [r["id"] for r in files.repositories_of(both, "container_toolkit")] == ["container-toolkit-deb"]
    one = {"repositories": [repository()]}
    assert [r["id"] for r in files.repositories_of(one, "container_toolkit")] == ["cuda-x"]


# -- the plan


def plan(component: str = "driver", **given: t.Any) -> dict[str, t.Any]:
    host = given.pop("record", None) or record()
    options = given.pop("options", {})
    return planning.plan_for(host, RELEASE, options, component=component, **given)


def test_a_good_host_gets_one_transaction_and_its_files() -> None:
    found = plan(library="import this")
    assert found["refusal"] == ""
    versions = {p["version"] for p in found["transaction"]["packages"]}
    assert versions == {"%s-*" % RELEASE["driver"]["version"], "*"}
    assert found["transaction"]["hold"] is True
    assert "linux-image-6.1.0-50-amd64" in found["transaction"]["hold_also"]
    assert "linux-headers-6.1.0-50-amd64" in [p["name"] for p in found["transaction"]["packages"]]
    assert sorted(f["dest"].rsplit("/", 1)[-1] for f in found["source"]["files"]) == [
        "52gpufleet-nvidia-driver",
        "gpufleet-cuda-debian12.sources",
        "gpufleet-nvidia-driver.pref",
        "gpufleet-nvidia.conf",
        "pynvml.py",
    ]
    assert [k["path"] for k in found["source"]["keys"]] == ["/etc/apt/keyrings/gpufleet-cuda-debian12.asc"]


def test_a_library_that_is_there_is_not_sent_again() -> None:
    there = record(files={files.NVML_LIBRARY: planning.digest("import this")})
    assert "pynvml.py" not in str(plan(record=there, library="import this")["source"])


def test_all_reasons_are_in_one_text_and_nothing_is_left_to_do() -> None:
    found = plan(record=record(gpus=[], runfile=True, platform="debian9"))
    assert found["refusal"].startswith("The NVIDIA driver refused, 3 reasons, nothing was changed:")
    assert all(check in found["refusal"] for check in ("gpu_stack.platform", "driver.gpu", "driver.runfile"))
    assert found["source"] == planning.NOTHING and found["transaction"] == planning.NO_PACKAGES


def test_a_mirrors_key_is_proved_on_the_control_node() -> None:
    options = {"mirror_url": "https://m.example", "mirror_key_fingerprint": FINGERPRINT}
    armoured = keys.armor(KEY).decode()
    good = plan(options=options, mirror_key=armoured)
    assert good["refusal"] == "" and good["source"]["keys"][0]["content"] == armoured
    bad = plan(options=dict(options, mirror_key_fingerprint="00" * 20), mirror_key=armoured)
    assert "driver.mirror_key.cuda-debian12" in bad["refusal"]


def test_the_container_toolkit_comes_where_a_runtime_is() -> None:
    auto = {"container_toolkit_wanted": "auto"}
    nothing = plan("container_toolkit", options=auto, record=record(gpus=[], platform="debian9"))
    assert nothing["refusal"] == "" and nothing["transaction"] == planning.NO_PACKAGES
    found = plan("container_toolkit", options=auto, record=record(runtimes=["docker"]))
    assert [p["name"] for p in found["transaction"]["packages"]] == RELEASE["container_toolkit"]["packages"]
    assert found["transaction"]["hold"] and found["transaction"]["remove"] == []
    assert [f["dest"] for f in found["source"]["files"]] == [
        "/etc/apt/sources.list.d/gpufleet-container-toolkit-deb.sources",
        "/etc/apt/apt.conf.d/52gpufleet-container-toolkit",
    ]


def test_the_cuda_toolkit_comes_from_the_drivers_repository() -> None:
    found = plan("cuda_toolkit", options={"cuda_toolkit_wanted": True, "container_toolkit_wanted": False})
    assert found["refusal"] == ""
    assert found["source"]["files"][0]["dest"] == "/etc/apt/sources.list.d/gpufleet-cuda-debian12.sources"
    assert found["transaction"]["packages"]


def test_dnf_gets_no_files_of_apt() -> None:
    found = plan(record=record(platform="rocky9"))
    assert found["refusal"] == ""
    assert found["transaction"]["module_streams"] == ["nvidia-driver:%s-open" % RELEASE["driver"]["branch"]]
    assert sorted(f["dest"] for f in found["source"]["files"]) == [
        "/etc/modprobe.d/gpufleet-nvidia.conf",
        "/etc/yum.repos.d/gpufleet-cuda-rhel9.repo",
    ]
    containers = plan("container_toolkit", options={"container_toolkit_wanted": True}, record=record(platform="rocky9"))
    assert [f["dest"] for f in containers["source"]["files"]] == [
        "/etc/yum.repos.d/gpufleet-container-toolkit-rpm.repo"
    ]


def test_warnings_are_said() -> None:
    assert any("driver.cloud_init" in said for said in plan(record=record(cloud_init="running"))["said"])
