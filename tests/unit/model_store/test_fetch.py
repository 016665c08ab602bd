# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The download against a server that cuts, lies and corrupts."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import urllib.error

import pytest
from ansible_collections.gpufleet.llm.plugins.module_utils import _model_fetch as fetch
from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import FileEntry, ModelError

DATA = hashlib.sha256(b"data").digest() * 60_000  # 1.9 MB
SUM = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def bench(server, tmp_path):
    class Bench:
        fetcher = fetch.Fetcher(attempts=3, backoff_seconds=0.01)
        partial = str(tmp_path / "x.partial")

        def get(self, size=len(DATA), sha256=SUM):
            entry = FileEntry("m.bin", size, sha256)
            return fetch.fetch_verified(self.fetcher, entry, server.url + "/files/m.bin", self.partial)

    server.files["m.bin"] = DATA
    return Bench()


def refusal(caught):
    return caught.value.findings[0]


def test_plain(bench, server):
    assert bench.get() == SUM
    assert server.sent("m.bin") == len(DATA)
    assert not os.path.exists(bench.partial + ".json")


def test_cut_connections_are_resumed_where_they_were_cut(bench, server, helpers):
    server.faults["m.bin"] = helpers.Fault("cut", times=3, after=500_000)
    assert bench.get() == SUM
    requests = server.gets("m.bin")
    assert [seen.range for seen in requests] == ["", "bytes=500000-", "bytes=1000000-", "bytes=1500000-"]
    assert all(seen.if_range for seen in requests[1:])
    assert server.sent("m.bin") == len(DATA)  # no byte twice


def test_a_later_run_goes_on(bench, server, helpers):
    server.faults["m.bin"] = helpers.Fault("cut", times=1, after=700_000)
    bench.fetcher.attempts = 0
    with pytest.raises(ModelError):
        bench.get()
    assert os.path.getsize(bench.partial) == 700_000
    bench.fetcher = fetch.Fetcher()
    assert bench.get() == SUM
    assert bench.fetcher.received == len(DATA) - 700_000


def test_partial_of_a_file_that_changed_is_dropped(bench, server, helpers):
    server.faults["m.bin"] = helpers.Fault("cut", times=1, after=700_000)
    server.files["m.bin"] = bytes(len(DATA))
    bench.fetcher.attempts = 0
    with pytest.raises(ModelError):
        bench.get()
    server.files["m.bin"] = DATA  # another ETag: If-Range makes the server send all of it
    bench.fetcher = fetch.Fetcher()
    assert bench.get() == SUM
    assert server.gets("m.bin")[-1].status == 200


def test_partial_that_is_garbage_is_fetched_again_whole(bench, server):
    with open(bench.partial, "wb") as handle:
        handle.write(b"x" * 1000)
    assert bench.get() == SUM
    assert [seen.range for seen in server.gets("m.bin")] == ["bytes=1000-", ""]


def test_server_that_ignores_range(bench, server, helpers):
    with open(bench.partial, "wb") as handle:
        handle.write(DATA[:1000])
    server.faults["m.bin"] = helpers.Fault("ignore_range")
    assert bench.get() == SUM
    assert server.gets("m.bin")[0].status == 200


def test_wrong_byte_is_refused_and_leaves_nothing(bench, server, helpers):
    server.faults["m.bin"] = helpers.Fault("wrong_byte")
    with pytest.raises(ModelError) as caught:
        bench.get()
    found = refusal(caught)
    assert found["check"] == "model.checksum"
    assert SUM in found["expected"]
    assert "m.bin" in found["detail"]
    assert SUM not in found["found"]
    assert not os.path.exists(bench.partial)


@pytest.mark.parametrize("kind", ["length_larger", "length_smaller"])
def test_lies_about_the_length_are_named(bench, server, helpers, kind):
    server.faults["m.bin"] = helpers.Fault(kind, by=7)
    with pytest.raises(ModelError) as caught:
        bench.get()
    announced = len(DATA) + (7 if kind == "length_larger" else -7)
    assert refusal(caught)["check"] == "model.download_size"
    assert str(announced) in refusal(caught)["found"]


def test_length_larger_than_the_file_without_a_known_size(bench, server, helpers):
    server.faults["m.bin"] = helpers.Fault("length_larger", by=7)
    assert bench.get(size=None) == SUM  # the rest is asked for, the server has no more, and the hash decides


def test_length_smaller_than_the_file_without_a_known_size(bench, server, helpers):
    server.faults["m.bin"] = helpers.Fault("length_smaller", by=7)
    with pytest.raises(ModelError) as caught:
        bench.get(size=None)
    assert refusal(caught)["check"] == "model.checksum"


@pytest.mark.parametrize("code", [429, 500, 503])
def test_passing_errors_are_tried_again(bench, server, helpers, code):
    server.faults["m.bin"] = helpers.Fault("status", times=2, code=code)
    assert bench.get() == SUM


def test_lasting_errors_end(bench, server, helpers):
    server.faults["m.bin"] = helpers.Fault("status", code=503)
    with pytest.raises(ModelError) as caught:
        bench.get()
    assert "503" in refusal(caught)["found"]
    assert len(server.gets("m.bin")) == 3


@pytest.mark.parametrize("code", [401, 403, 404])
def test_refusals_are_not_tried_again(bench, server, helpers, code):
    server.faults["m.bin"] = helpers.Fault("status", code=code)
    with pytest.raises(ModelError) as caught:
        bench.get()
    assert str(code) in refusal(caught)["found"]
    assert len(server.gets("m.bin")) == 1


def test_nobody_listens(bench, server):
    server.stop()
    bench.fetcher.sleep = lambda seconds: None
    with pytest.raises(ModelError) as caught:
        fetch.fetch_verified(bench.fetcher, FileEntry("m", 1, SUM), "http://127.0.0.1:9/x", bench.partial)
    assert "refused" in refusal(caught)["found"].lower()


def test_redirects_keep_tls_and_credentials():
    handler = fetch._SafeRedirect(allow_http=False)
    request = fetch.urllib.request.Request("https://hub/a", headers={"Authorization": "Bearer t", "Range": "bytes=1-"})
    other = handler.redirect_request(request, None, 302, "", {}, "https://storage/a")
    assert other.get_header("Authorization") is None
    assert other.get_header("Range") == "bytes=1-"
    same = handler.redirect_request(request, None, 302, "", {}, "https://hub/b")
    assert same.get_header("Authorization") == "Bearer t"
    with pytest.raises(ModelError):
        handler.redirect_request(request, None, 302, "", {}, "http://hub/a")


def test_the_size_that_a_server_claims(bench, server):
    assert bench.fetcher.size(server.url + "/files/m.bin") == len(DATA)
    assert bench.fetcher.size(server.url + "/files/absent.bin") is None
    url = server.url
    server.stop()
    assert bench.fetcher.size(url + "/files/m.bin") is None


def test_a_partial_that_is_whole_is_not_asked_for_again(bench, server):
    with open(bench.partial, "wb") as handle:
        handle.write(DATA)
    assert bench.get() == SUM
    assert server.gets("m.bin") == []


def test_a_partial_that_is_too_long_is_begun_anew(bench, server):
    with open(bench.partial, "wb") as handle:
        handle.write(DATA + b"more")
    assert bench.get() == SUM
    assert [seen.range for seen in server.gets("m.bin")] == [""]


def test_a_partial_of_another_url_is_begun_anew(bench, server):
    with open(bench.partial, "wb") as handle:
        handle.write(DATA[:1000])
    fetch._write_notes(bench.partial, {"url": "http://elsewhere.example/m.bin", "etag": '"x"'})
    assert bench.get() == SUM
    assert [(seen.range, seen.if_range) for seen in server.gets("m.bin")] == [("", "")]


@pytest.mark.parametrize("notes", ["{half", "[1]"])
def test_notes_that_a_cut_run_left_half_written_are_no_notes(bench, server, notes):
    with open(bench.partial, "wb") as handle:
        handle.write(DATA[:1000])
    with open(bench.partial + ".json", "w", encoding="utf-8") as handle:
        handle.write(notes)
    assert bench.get() == SUM
    assert [(seen.range, seen.if_range) for seen in server.gets("m.bin")] == [("bytes=1000-", "")]


class Answer:
    """An answer of a server that says what it likes."""

    def __init__(self, status, headers, *blocks):
        self.status, self.headers, self.blocks = status, headers, list(blocks)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        pass

    def read(self, _size):
        block = self.blocks.pop(0) if self.blocks else b""
        if isinstance(block, Exception):
            raise block
        return block


@pytest.fixture
def lied(bench, monkeypatch):
    """Have the server answer what a test says, one answer after the other; gives the requests' headers."""

    def install(*answers):
        told, asked = list(answers), []

        def open_url(_url, headers):
            asked.append(dict(headers))
            answer = told.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(bench.fetcher, "open", open_url)
        return asked

    return install


@pytest.mark.parametrize("said", ["bytes 5-9/10", "nonsense", None])
def test_a_part_that_is_not_the_one_asked_for_is_thrown_away(bench, lied, said):
    with open(bench.partial, "wb") as handle:
        handle.write(b"0123")
    asked = lied(Answer(206, {"Content-Range": said}, b"456789"), Answer(200, {"Content-Length": "10"}, b"0123456789"))
    assert bench.get(size=None, sha256=hashlib.sha256(b"0123456789").hexdigest())
    assert ["Range" in headers for headers in asked] == [True, False]


def test_a_part_of_a_file_of_unknown_length_ends_where_the_server_ends(bench, lied):
    with open(bench.partial, "wb") as handle:
        handle.write(b"0123")
    lied(Answer(206, {"Content-Range": "bytes 4-9/*", "ETag": 'W/"weak"'}, b"456", b"789"))
    assert bench.get(size=None, sha256=hashlib.sha256(b"0123456789").hexdigest())


def test_what_came_before_a_cut_in_a_chunk_is_kept(bench, lied):
    cut = http.client.IncompleteRead(b"3456")
    asked = lied(
        Answer(200, {"ETag": '"e"', "Content-Length": "10"}, b"012", cut),
        Answer(206, {"Content-Range": "bytes 7-9/10"}, b"789"),
    )
    assert bench.get(size=10, sha256=hashlib.sha256(b"0123456789").hexdigest())
    assert (asked[1]["Range"], asked[1]["If-Range"]) == ("bytes=7-", '"e"')


def test_a_server_that_sends_more_than_it_may_is_stopped(bench, lied):
    lied(Answer(200, {}, b"0123456789", b"0123456789"))
    with pytest.raises(ModelError) as caught:
        bench.get(size=15)
    assert (refusal(caught)["expected"], refusal(caught)["found"]) == ("15 bytes", "more than that")


def test_nothing_behind_what_is_there_means_whole_or_another_file(bench, lied):
    def nothing(length):
        return urllib.error.HTTPError("u", 416, "range", {"Content-Range": "bytes */%d" % length}, io.BytesIO())

    with open(bench.partial, "wb") as handle:
        handle.write(b"0123456789")
    lied(nothing(10))
    whole = hashlib.sha256(b"0123456789").hexdigest()
    assert bench.get(size=None, sha256=whole) == whole
    with open(bench.partial, "wb") as handle:
        handle.write(b"another, and longer")
    asked = lied(nothing(10), Answer(200, {}, b"0123456789"))
    assert bench.get(size=None, sha256=whole) == whole
    assert ["Range" in headers for headers in asked] == [True, False]


def test_a_right_hash_of_a_wrong_length_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    entry = FileEntry("x", 4, hashlib.sha256(b"abc").hexdigest())
    with pytest.raises(ModelError) as caught:
        fetch.check_hash(entry, str(tmp_path / "x"), "here")
    assert (refusal(caught)["expected"], refusal(caught)["found"]) == ("4 bytes", "3 bytes (3 bytes)")
