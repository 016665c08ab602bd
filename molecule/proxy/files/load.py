# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls until a file appears: ``load.py STOP tests/proxy_check.py``. Every new request and every long stream must hold;
a kept connection of the client that is revoked meanwhile (GPUFLEET_REVOKED_*) must be refused or closed at the end."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[2])))
specification = importlib.util.spec_from_file_location("proxy_check", sys.argv[2])
check = importlib.util.module_from_spec(specification)
specification.loader.exec_module(check)
STOP = sys.argv[1]
END = time.monotonic() + 300
failures: list[str] = []
counts = {"requests": 0, "streams": 0}


def going() -> bool:
    return not os.path.exists(STOP) and time.monotonic() < END


def requests(endpoint: check.Endpoint) -> None:
    while going():
        try:
            status = endpoint.send({"path": "/v1/models"}).status
        except OSError as exc:
            status = repr(exc)
        counts["requests"] += 1
        if status != 200:
            failures.append("request %d: %s" % (counts["requests"], status))
        time.sleep(0.2)


def streams(endpoint: check.Endpoint) -> None:
    while going():
        try:
            wrong = check.stream(endpoint, 250)
        except OSError as exc:
            wrong = repr(exc)
        counts["streams"] += 1
        if wrong:
            failures.append("stream %d: %s" % (counts["streams"], wrong))


with tempfile.TemporaryDirectory() as directory:
    good = check.Endpoint(os.environ, directory)
    with good.connect("revoked") as kept:
        case = {"path": "/v1/models", "connection": "keep-alive", "authorization": "Bearer " + os.environ["LEAVER_KEY"]}
        answer = check.exchange(kept, good.request(case))
        assert answer.status == 200, answer
        threads = [threading.Thread(target=work, args=(good,)) for work in (requests, streams)]
        for thread in threads:
            thread.start()
        while going():
            time.sleep(2)
            try:
                answer = check.exchange(kept, good.request(case))
            except OSError:
                answer = check.Answer(0, {}, b"", [])
            if answer.status != 200:
                break
        for thread in threads:
            thread.join()
    assert answer.status in (0, 401), "the revoked client's kept connection got %s" % answer.status
print(
    "kept connection of the revoked client: %s; %s; failed: %d %s"
    % (answer.status or "closed", counts, len(failures), failures[:5])
)
sys.exit(1 if failures or not counts["streams"] else 0)
