# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of a deployed site, made from the control node's identity files: shared by the tests on booted hosts."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai


@dataclass(frozen=True)
class Site:
    """Where a deployed model answers, and with which identity it may be called."""

    url: str
    model: str
    pki: Path
    client: str = "demo"

    @property
    def identity(self) -> Path:
        return self.pki / "clients" / self.client

    @property
    def api_key(self) -> str:
        return (self.identity / "api_key").read_text(encoding="utf-8").strip()

    def environment(self) -> dict[str, str]:
        """Return the variables that `make demo-env` exports for this site."""
        return {
            **os.environ,
            "GPUFLEET_URL": self.url,
            "GPUFLEET_CA": str(self.pki / "ca.crt"),
            "GPUFLEET_CERT": str(self.identity / "client.crt"),
            "GPUFLEET_KEY": str(self.identity / "client.key"),
            "GPUFLEET_API_KEY": self.api_key,
            "GPUFLEET_MODEL": self.model,
        }

    def openai(self, timeout_seconds: float = 120.0) -> openai.OpenAI:
        """Return the public client library, with this site's certificate, key and no retries."""
        tls = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        tls.load_cert_chain(self.identity / "client.crt", self.identity / "client.key")
        return openai.OpenAI(
            base_url=self.url + "/v1",
            api_key=self.api_key,
            max_retries=0,
            timeout=timeout_seconds,
            http_client=openai.DefaultHttpxClient(verify=tls, timeout=timeout_seconds),
        )

    def completes(self) -> bool:
        """Return whether one token comes back through the proxy."""
        try:
            answer = self.openai(30).completions.create(model=self.model, prompt="Hello", max_tokens=1)
        except (openai.OpenAIError, httpx2.HTTPError):
            return False
        return answer.usage is not None and answer.usage.completion_tokens == 1
