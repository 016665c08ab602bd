#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stream one chat completion to the terminal and say when the first token came.

Usage: tools/chat.py [PROMPT], with the variables that `make demo-env` prints in the environment.
Only the standard library is used, so the file is also an example of a client.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import time
import urllib.parse


def stream(prompt: str, max_tokens: int = 48) -> None:
    """Ask once and print the tokens as they come.

    Raises:
        SystemExit: the endpoint answered anything but a stream that ends whole.
    """
    url = urllib.parse.urlsplit(os.environ["GPUFLEET_URL"])
    tls = ssl.create_default_context(cafile=os.environ["GPUFLEET_CA"])
    tls.load_cert_chain(os.environ["GPUFLEET_CERT"], os.environ["GPUFLEET_KEY"])
    connection = http.client.HTTPSConnection(url.hostname or "", url.port, context=tls, timeout=120)
    body = {
        "model": os.environ["GPUFLEET_MODEL"],
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
    }
    began = time.monotonic()
    connection.request(
        "POST",
        "/v1/chat/completions",
        json.dumps(body),
        {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["GPUFLEET_API_KEY"]},
    )
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"expected 200, found {response.status}: {response.read().decode('utf-8', 'replace')}")
    first, tokens, whole = 0.0, 0, False
    print(f"    > {prompt}\n    ", end="", flush=True)
    for raw in response:
        line = raw.decode("utf-8").strip()
        if line == "data: [DONE]":
            whole = True
        elif line.startswith("data: "):
            choices = json.loads(line[6:])["choices"]
            text = choices[0]["delta"].get("content") if choices else None
            if text:
                first = first or time.monotonic() - began
                tokens += 1
                print(text, end="", flush=True)
    print(f"\n    time to first token {first * 1000:.0f} ms, {tokens} tokens in {time.monotonic() - began:.1f} s")
    if not whole or not tokens:
        sys.exit("the stream ended early")


if __name__ == "__main__":
    stream(" ".join(sys.argv[1:]) or "Write a short sentence about a cat.")
