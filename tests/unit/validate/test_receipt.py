# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a receipt is new, where it's kept, and that a failed proof leaves the last good one alone."""

from __future__ import annotations

import datetime
import json
import pathlib
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _receipt
from ansible_collections.gpufleet.llm.plugins.module_utils._finding import finding

START = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
GOOD = finding("host.llm.stream_end", True, expected="[DONE]", found="[DONE]")
BAD = finding("host.llm.stream_end", False, expected="[DONE]", found="nothing", remedy="Look.")
WARNING = finding("host.time", False, severity="warning", expected="x", found="y", remedy="z")
GIVEN: dict[str, t.Any] = {
    "host": "llm1",
    "release": "2000.01.0",
    "accelerator": "cpu",
    "findings": [GOOD],
    "plan": None,
    "hashes": {
        "engines": {"vllm": {"version": "1.2.3-abc", "key": "abc"}},
        "models": {"llm": {"version": "v1", "manifest_sha256": "d"}},
        "configuration": {"/etc/x": "e"},
    },
    "units": {"vllm@llm-a.service": {"active_state": "active", "invocation_id": "1"}},
    "timings": {"control": {"llm": {"time_to_first_token_seconds": 0.5}}},
    "measurements": {"read_rate": {"mib_per_second": 900.0, "device": "8:1", "measured_at": 1}},
}


def make(seconds: int = 0, **changes: t.Any) -> dict[str, t.Any]:
    return _receipt.make(when=START + datetime.timedelta(seconds=seconds), **dict(GIVEN, **changes))


class Place:
    def __init__(self, root: pathlib.Path) -> None:
        self.path = root / "lib" / "receipt.json"
        self.history = root / "lib" / "receipts"

    def keep(self, receipt: dict[str, t.Any], keep: int = 3, write: bool = True) -> _receipt.Change:
        return _receipt.keep_receipt(receipt, str(self.path), str(self.history), keep, write)

    def previous(self) -> list[str]:
        return sorted(p.name for p in self.history.glob("*"))


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    return Place(tmp_path)


def test_the_first_receipt_is_written_and_readable_by_all(place: Place) -> None:
    assert place.keep(make()).changed
    written = json.loads(place.path.read_text())
    assert written["ok"] is True and written["when"] == "2000-01-01T00:00:00Z"
    assert place.path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"timings": {}},
        {"measurements": {}},
        {"findings": [dict(GOOD, found="other", detail="other")]},
        {"findings": [GOOD, WARNING]},
    ],
)
def test_times_and_figures_make_no_new_receipt(place: Place, changes: dict[str, t.Any]) -> None:
    place.keep(make())
    before = place.path.read_text()
    assert not place.keep(make(60, **changes)).changed
    assert place.path.read_text() == before
    assert place.previous() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"release": "2000.02.0"},
        {"hashes": {"engines": {}}},
        {"units": {"vllm@llm-a.service": {"active_state": "active", "invocation_id": "2"}}},
        {"findings": [GOOD, dict(GOOD, check="host.llm.completion")]},
        {"plan": {"driver": "none"}},
        {"accelerator": "cuda"},
    ],
)
def test_what_is_deployed_makes_a_new_receipt_and_keeps_the_one_before(place: Place, changes: dict[str, t.Any]) -> None:
    place.keep(make())
    before = place.path.read_text()
    assert place.keep(make(60, **changes)).changed
    assert place.path.read_text() != before
    assert (place.history / "20000101T000000Z.json").read_text() == before


def test_a_receipt_somebody_edited_is_replaced(place: Place) -> None:
    place.keep(make())
    edited = json.loads(place.path.read_text())
    edited["release"] = "1999.01.0"
    place.path.write_text(json.dumps(edited))
    assert place.keep(make(60)).changed
    assert json.loads(place.path.read_text())["release"] == "2000.01.0"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1}'])
def test_a_file_that_is_no_receipt_is_replaced(place: Place, text: str) -> None:
    place.path.parent.mkdir()
    place.path.write_text(text)
    assert place.keep(make()).changed
    assert json.loads(place.path.read_text())["ok"] is True


def test_a_failed_proof_is_recorded_and_leaves_the_last_good_one(place: Place) -> None:
    place.keep(make())
    good = place.path.read_text()
    change = place.keep(make(60, findings=[BAD]))
    assert change.changed and change.path.endswith("20000101T000100Z-failed.json")
    assert place.path.read_text() == good
    assert json.loads(pathlib.Path(change.path).read_text())["ok"] is False


def test_the_same_failure_is_recorded_once_and_again_after_a_good_one(place: Place) -> None:
    assert place.keep(make(0, findings=[BAD])).changed
    assert not place.keep(make(60, findings=[BAD])).changed
    assert place.keep(make(120)).changed
    assert place.keep(make(180, findings=[BAD])).changed
    assert len(place.previous()) == 2


def test_only_so_many_previous_ones_stay(place: Place) -> None:
    for number in range(6):
        place.keep(make(number, release="r%d" % number), keep=2)
    assert place.previous() == ["20000101T000003Z.json", "20000101T000004Z.json"]


def test_check_mode_writes_nothing(place: Place) -> None:
    assert place.keep(make(), write=False).changed
    assert not place.path.parent.exists()


def test_the_copy_follows(tmp_path: pathlib.Path) -> None:
    good, failed = tmp_path / "llm1.json", tmp_path / "llm1.failed.json"
    assert _receipt.keep_copy(make(), str(tmp_path), "llm1", write=False)
    assert not good.exists()
    assert _receipt.keep_copy(make(), str(tmp_path), "llm1", write=True)
    assert not _receipt.keep_copy(make(60), str(tmp_path), "llm1", write=True)
    text = good.read_text()
    assert _receipt.keep_copy(make(120, findings=[BAD]), str(tmp_path), "llm1", write=True)
    assert failed.exists() and good.read_text() == text
    assert not _receipt.keep_copy(make(180, findings=[BAD]), str(tmp_path), "llm1", write=True)
    assert _receipt.keep_copy(make(240), str(tmp_path), "llm1", write=True)
    assert not failed.exists()


def test_a_crash_while_writing_leaves_the_old_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.keep(make())
    before = place.path.read_text()

    def fail(*_args: t.Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_receipt.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        place.keep(make(60, release="r2"))
    assert place.path.read_text() == before
    assert sorted(p.name for p in place.path.parent.glob("*")) == ["receipt.json", "receipts"]


def test_artifacts_are_read_from_links_and_records(tmp_path: pathlib.Path) -> None:
    (tmp_path / "versions" / "v1").mkdir(parents=True)
    (tmp_path / "versions" / "v1" / "r.json").write_text('{"key": "k", "other": 1}')
    (tmp_path / "current").symlink_to("versions/v1")
    link = str(tmp_path / "current")
    assert _receipt.read_artifact(link, {"r.json": ["key"], "x.json": ["y"]}) == {
        "version": "v1",
        "key": "k",
        "y": None,
    }
    assert _receipt.read_artifact(str(tmp_path / "none"), {"r.json": ["key"]}) == {"version": None, "key": None}


def test_digests_go_down_and_leave_directories_out(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.conf").write_text("x")
    digests = _receipt.read_digests(["%s/**" % tmp_path, "%s/none/*" % tmp_path])
    assert list(digests) == [str(tmp_path / "a" / "x.conf")]
    assert digests[str(tmp_path / "a" / "x.conf")].startswith("2d711642b726b044")


def test_the_read_rate_is_remembered_through_the_receipt(place: Place) -> None:
    place.keep(make())
    assert _receipt.remembered_read_rate(place.path.read_text()) == GIVEN["measurements"]["read_rate"]
    assert _receipt.remembered_read_rate(None) is None
    assert _receipt.remembered_read_rate("{") is None


def test_the_summary_names_what_matters() -> None:
    text = "\n".join(_receipt.summary_lines(make(findings=[GOOD, WARNING])))
    for part in (
        "llm1, proved",
        "2000.01.0",
        "2 made, 0 failed, 1 warnings",
        "vllm 1.2.3-abc",
        "llm v1",
        "asked by the control node, after 0.500 s",
    ):
        assert part in text
    text = "\n".join(_receipt.summary_lines(make(findings=[BAD])))
    assert "NOT proved" in text and "host.llm.stream_end: found nothing, expected [DONE]" in text


def test_the_script_prints_the_summary(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    receipt = tmp_path / "llm1.json"
    receipt.write_text(_receipt.render(make()))
    script = [sys.executable, str(root / "tools" / "receipt_summary.py")]
    done = subprocess.run([*script, str(receipt)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == _receipt.summary_lines(make())
    receipt.write_text("{")
    assert subprocess.run([*script, str(receipt)], capture_output=True, check=False).returncode == 1


def test_a_measurement_joins_the_receipt_and_changes_nothing_it_proves(place: Place) -> None:
    place.keep(make())
    first = {"served_tokens": 900}
    said = _receipt.add_measurement(str(place.path), "context", "llm", first, START, write=False)
    assert "served_tokens" in said.after and "served_tokens" not in place.path.read_text()
    for subject in ("llm", "other"):
        _receipt.add_measurement(str(place.path), "context", subject, first, START, write=True)
    _receipt.add_measurement(str(place.path), "context", "llm", {"served_tokens": 800}, START, write=True)
    kept = json.loads(place.path.read_text())
    assert kept["measurements"]["context"]["llm"] == {"served_tokens": 800, "when": "2000-01-01T00:00:00Z"}
    assert set(kept["measurements"]["context"]) == {"llm", "other"}
    assert kept["measurements"]["read_rate"] == GIVEN["measurements"]["read_rate"]
    assert not place.keep(make(60)).changed, "the same deployment proved again keeps its measurements"
    assert place.keep(make(90, release="2000.02.0")).changed
    assert "context" not in json.loads(place.path.read_text())["measurements"], "another deployment begins without"


@pytest.mark.parametrize("text", [None, "{", "[]", '{"schema": 99}'])
def test_a_measurement_needs_a_receipt(place: Place, text: str | None) -> None:
    if text is not None:
        place.path.parent.mkdir()
        place.path.write_text(text)
    with pytest.raises(_receipt.NoReceipt):
        _receipt.add_measurement(str(place.path), "context", "llm", {}, START, write=True)
    assert place.path.exists() is (text is not None)
