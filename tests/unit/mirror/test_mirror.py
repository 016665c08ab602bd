# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in repositories are what they say, and apt resolves every platform's package list against them.

apt is the real one with a root directory of its own: it reads signed lists and computes, and nothing is installed.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _gpu_stack_plan, _package_run, _repository_key
from ansible_collections.gpufleet.llm.plugins.module_utils import _release as releasing
from ansible_collections.gpufleet.llm.plugins.module_utils._package_apt import Apt
from ansible_collections.gpufleet.llm.plugins.module_utils._package_host import LocalPackageHost
from ansible_collections.gpufleet.llm.plugins.module_utils._package_plan import PackageError, Record, Request
from mirror import build as building
from mirror import build_rpm, deb, family
from support import ROOT

RELEASES = str(ROOT / "releases")
PLATFORMS = ("debian12", "debian13", "ubuntu2204", "ubuntu2404")
A, B = "580.901.01", "580.902.02"
H100, TESLA_V100 = "2330", "1db1"
PRIVATE = ("apt-get", "apt-cache", "apt-mark")


@pytest.fixture(scope="session")
def key_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
def make(tmp_path: pathlib.Path, key_dir: pathlib.Path) -> t.Callable[..., pathlib.Path]:
    def built(platform: str = "debian12", versions: t.Sequence[str] = (A, B), **options: t.Any) -> pathlib.Path:
        building.build(tmp_path / "mirror", platform, versions, key_dir, **options)
        return tmp_path / "mirror"

    return built


class PrivateApt(LocalPackageHost):
    """apt with lists, state and configuration below a directory, and no package installed."""

    def __init__(self, root: pathlib.Path, mirror: pathlib.Path, platform: str) -> None:
        super().__init__()
        for name in ("lists/partial", "archives/partial", "etc/sources.list.d", "etc/preferences.d"):
            (root / name).mkdir(parents=True)
        (root / "status").touch()
        release = building.releases(ROOT / "releases")[0]
        nvidia = release["platforms"][platform]["nvidia"]
        text = ""
        for repository in {nvidia["driver_repository"], nvidia["container_toolkit_repository"]}:
            path = release["repositories"][repository]["paths"]["x86_64"]
            key = mirror / release["repositories"][repository]["key"].replace("{path}", path)
            armoured = root / (repository + ".asc")
            shutil.copyfile(key, armoured)
            text += "Types: deb\nURIs: file:%s/\nSuites: /\nSigned-By: %s\nArchitectures: amd64\n\n" % (
                mirror / path,
                armoured,
            )
        (root / "etc/sources.list.d/mirror.sources").write_text(text)
        places = {
            "Dir::State": root,
            "Dir::State::status": root / "status",
            "Dir::State::extended_states": root / "extended_states",
            "Dir::State::lists": root / "lists",
            "Dir::Cache": root,
            "Dir::Cache::archives": root / "archives",
            "Dir::Etc": root / "etc",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        self.options = [word for item in places.items() for word in ("--option", "%s=%s" % item)]

    def run(self, argv: t.Sequence[str]) -> tuple[int, str, str]:
        return super().run([argv[0], *self.options, *argv[1:]] if argv[0] in PRIVATE else argv)

    def lock_holder(self, path: str) -> int | None:
        return None


def resolve(host: PrivateApt, request: Request) -> dict[str, str | None]:
    """Return version by name of what a transaction on an empty host would install."""
    backend = Apt(host)
    backend.read = lambda: Record({})  # type: ignore[method-assign]
    status, out, err = host.run(["apt-get", "update"])
    assert status == 0, out + err
    outcome = _package_run.converge(backend, request, Record({}), check=True, timeout_seconds=5, update=False)
    assert outcome.findings == []
    return dict(outcome.after.installed)


def everything(release_id: str, platform: str, pci: str, flavour: str) -> dict[str, t.Any]:
    """Return the plan of a host that wants everything the release knows for its platform."""
    release = releasing.load(RELEASES, release_id)
    nvidia = release["platforms"][platform]["nvidia"]
    host = {
        "platform": platform,
        "architecture": "x86_64",
        "kernel": "6.1.0-50-amd64",
        "gpus": [{"pci_address": "0000:01:00.0", "pci_device_id": pci}],
        "installed": {},
    }
    options = {
        "flavour": flavour,
        "packages": "full",
        "mirror_url": "http://mirror.example",
        "mirror_key_fingerprint": "0" * 40,
        "cuda_toolkit_wanted": bool(nvidia["cuda_toolkit"]),
        "cudnn_wanted": bool(nvidia["cudnn"]),
        "container_toolkit_wanted": True,
    }
    return _gpu_stack_plan.gpu_stack_plan(release, host, options)


def cases() -> t.Iterator[tuple[str, str]]:
    for release_id in releasing.known_ids(RELEASES):
        for platform in releasing.load(RELEASES, release_id)["platforms"]:
            if platform in PLATFORMS:
                yield release_id, platform


@pytest.mark.parametrize("flavour", ["open", "proprietary"])
@pytest.mark.parametrize(("release_id", "platform"), list(cases()))
def test_a_releases_packages_resolve_on_each_platform_of_apt(
    release_id: str, platform: str, flavour: str, make: t.Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
    version = releasing.load(RELEASES, release_id)["driver"]["version"]
    branch = version.split(".")[0]
    mirror = make(platform, ["%s.1.1" % branch, version, "%s.999.99" % branch], kernels=["6.1.0-50-amd64"])
    plan = everything(release_id, platform, H100, flavour)
    assert plan["refusal"] == ""
    host = PrivateApt(tmp_path / "apt", mirror, platform)
    driver = plan["driver"]
    wanted = {package["name"]: package["version"] for package in driver["packages"]}
    found = resolve(host, Request(wanted, hold_also=tuple(driver["hold"])))
    assert set(wanted) <= set(found)
    family_versions = {key: str(value) for key, value in found.items() if not key.startswith(("nvlsm", "linux-"))}
    assert {value.split("-")[0] for value in family_versions.values()} == {version}
    pinned = [
        name for name in family_versions if not any(pathlib.PurePath(name).match(p) for p in driver["pin_patterns"])
    ]
    assert pinned == [], "members of the family that the release doesn't pin"
    for part in ("cuda_toolkit", "container_toolkit"):
        wanted = {package["name"]: package["version"] for package in plan[part]["packages"]}
        if wanted:
            assert set(wanted) <= set(resolve_again(host, Request(wanted)))


def resolve_again(host: PrivateApt, request: Request) -> dict[str, str | None]:
    backend = Apt(host)
    return dict(
        _package_run.converge(backend, request, Record({}), check=True, timeout_seconds=5, update=False).after.installed
    )


def test_apt_alone_would_not_find_the_older_version(
    make: t.Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """What package_set names the members of a family for."""
    host = PrivateApt(tmp_path / "apt", make(), "debian12")
    host.run(["apt-get", "update"])
    status, _out, err = host.run(["apt-get", "--simulate", "install", "nvidia-driver-cuda=%s-1" % A])
    assert status != 0
    assert "nvidia-driver-cuda" in _out + err
    assert (
        resolve(host, Request({"nvidia-driver-cuda": A + "-*"}, hold_also=("nvidia-*",)))["libnvidia-ml1"] == A + "-1"
    )


def test_the_key_is_what_the_record_says_by_gpg_and_by_us(
    make: t.Callable[..., pathlib.Path], key_dir: pathlib.Path
) -> None:
    record = json.loads((make() / "mirror.json").read_text())
    for name in ("mirror.pub", "mirror.gpg"):
        assert _repository_key.fingerprints((key_dir / name).read_bytes()) == [record["fingerprint"]]
    assert pathlib.Path(record["key_file"]) == key_dir / "mirror.pub"
    assert record["packages"]["cuda-debian12"]["libcuda1"] == [A + "-1", B + "-1"]


@pytest.mark.parametrize("fault", ["", "key_file", "signature"])
def test_what_is_signed_by_which_key(fault: str, make: t.Callable[..., pathlib.Path], key_dir: pathlib.Path) -> None:
    mirror = make(faults=[fault] if fault else [])
    repository = mirror / "debian12/x86_64"
    trusted = subprocess.run(
        ["gpgv", "--keyring", str(key_dir / "mirror.gpg"), str(repository / "InRelease")],
        capture_output=True,
        check=False,
    )
    assert (trusted.returncode == 0) is (not fault)
    served = _repository_key.fingerprints((repository / "3bf863cc.pub").read_bytes())
    expected = json.loads((mirror / "mirror.json").read_text())["fingerprint"]
    assert (served == [expected]) is (fault != "key_file")
    assert bool(_repository_key.check((repository / "3bf863cc.pub").read_bytes(), expected, "it")) is (
        fault == "key_file"
    )


def entries(mirror: pathlib.Path) -> dict[tuple[str, str], dict[str, str]]:
    found = {}
    for paragraph in (mirror / "debian12/x86_64/Packages").read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.strip().splitlines())
        found[(fields["Package"], fields["Version"])] = fields
    return found


def test_dpkg_reads_the_packages_and_the_index_tells_the_truth(make: t.Callable[..., pathlib.Path]) -> None:
    mirror = make()
    listed = entries(mirror)
    fields = listed[("nvidia-driver-cuda", B + "-1")]
    path = mirror / "debian12/x86_64" / fields["Filename"]
    shown = subprocess.run(["dpkg-deb", "--field", str(path)], capture_output=True, text=True, check=True).stdout
    assert "Depends: libcuda1 (= %s-1), " % B in shown
    assert hashlib.sha256(path.read_bytes()).hexdigest() == fields["SHA256"]
    contents = subprocess.run(
        ["dpkg-deb", "--contents", str(mirror / "debian12/x86_64" / ("libcuda1_%s-1_amd64.deb" % B))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "libcuda.so.1 -> libcuda.so." + B in contents
    again = subprocess.run(
        ["dpkg-deb", "--info", str(path), "postinst"], capture_output=True, text=True, check=True
    ).stdout
    assert "/run/gpufleet-mirror/slow-nvidia-driver-cuda" in again


@pytest.mark.parametrize(
    ("fault", "differing", "absent", "listed"),
    [
        ("tampered", ["libnvidia-ml1"], [], True),
        ("tampered:libcuda1", ["libcuda1"], [], True),
        ("missing_file", [], ["libnvidia-ml1"], True),
        ("incomplete", [], [], False),
    ],
)
def test_faults_of_packages(
    fault: str, differing: list[str], absent: list[str], listed: bool, make: t.Callable[..., pathlib.Path]
) -> None:
    mirror = make(faults=[fault])
    found = entries(mirror)
    assert (("libnvidia-ml1", B + "-1") in found) is listed
    wrong, missing = set(), set()
    for (name, _version), fields in found.items():
        path = mirror / "debian12/x86_64" / fields["Filename"]
        if not path.exists():
            missing.add(name)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != fields["SHA256"]:
            wrong.add(name)
            assert path.stat().st_size == int(fields["Size"])
    assert (sorted(wrong), sorted(missing)) == (differing, absent)


def test_a_removed_version_and_expired_metadata(make: t.Callable[..., pathlib.Path]) -> None:
    assert {v for name, v in entries(make(faults=["removed"])) if name == "libcuda1"} == {B + "-1"}
    assert "Valid-Until" not in (make() / "debian12/x86_64/Release").read_text()
    assert "Valid-Until" in (make(faults=["expired"]) / "debian12/x86_64/Release").read_text()


def test_apt_refuses_what_is_signed_by_another_key(make: t.Callable[..., pathlib.Path], tmp_path: pathlib.Path) -> None:
    host = PrivateApt(tmp_path / "apt", make(faults=["signature"]), "debian12")
    backend = Apt(host)
    backend.read = lambda: Record({})  # type: ignore[method-assign]
    with pytest.raises(PackageError, match="signed by the key that this host trusts"):
        _package_run.converge(
            backend, Request({"libcuda1": A + "-*"}), Record({}), check=False, timeout_seconds=5, update=True
        )


def test_unknown_faults_and_platforms_are_refused(make: t.Callable[..., pathlib.Path]) -> None:
    with pytest.raises(SystemExit, match="unknown fault: wrong; known: key_file"):
        make(faults=["wrong"])
    with pytest.raises(SystemExit, match="no release knows the platform debian11"):
        make("debian11")
    with pytest.raises(SystemExit, match="build_rpm"):
        make("rhel9")


@pytest.mark.parametrize("release_id", releasing.known_ids(RELEASES))
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_name_of_a_release_is_in_the_mirror(
    release_id: str, platform: str, make: t.Callable[..., pathlib.Path]
) -> None:
    release = releasing.load(RELEASES, release_id)
    nvidia = release["platforms"][platform]["nvidia"]
    record = json.loads((make(platform, [release["driver"]["version"]]) / "mirror.json").read_text())
    here = {name for names in record["packages"].values() for name in names}
    package_set = release["package_sets"][nvidia["package_set"]]
    wanted = {name for sets in package_set["packages"].values() for names in sets.values() for name in names}
    wanted |= {name for names in package_set["fabric_manager"].values() for name in names or ()}
    wanted |= (
        set(nvidia["cuda_toolkit"] or ()) | set(nvidia["cudnn"] or ()) | set(release["container_toolkit"]["packages"])
    )
    assert sorted(wanted - here) == []


def test_every_rpm_name_of_a_release_is_in_the_rpm_family() -> None:
    for release_id in releasing.known_ids(RELEASES):
        package_set = releasing.load(RELEASES, release_id)["package_sets"]["rhel"]
        wanted = {name for sets in package_set["packages"].values() for names in sets.values() for name in names}
        assert sorted(wanted - set(build_rpm.FAMILY)) == []


def test_specs_of_rpms() -> None:
    texts = dict(build_rpm.specs([A]))
    assert "Requires: libnvidia-ml = 3:%s-1.el9" % A in texts["nvidia-driver-cuda-%s.spec" % A]
    assert "Conflicts: nvidia-kmod" in texts["kmod-nvidia-open-dkms-%s.spec" % A]
    assert '  stream: "580-open"' in build_rpm.modules("nvidia-driver:580-open", ["a-3:1-1.x86_64"])


def test_the_stand_ins_say_whose_version_they_are() -> None:
    assert family.upstream("1:%s-1ubuntu1" % A) == A
    package = next(p for p in family.driver("ubuntu", A + "-1ubuntu1") if p.name == "nvidia-dkms-580-open")
    assert package.fields["Conflicts"] == "nvidia-dkms-580"
    assert package.fields["Depends"].startswith("nvidia-kernel-common-580 (= %s-1ubuntu1), " % A)
    assert deb.Package("a", "1:2-1").file_name == "a_2-1_amd64.deb"
    assert {p.version for p in family.kernel("6.1.0-50-amd64")} == {"6.1.0-1"}
