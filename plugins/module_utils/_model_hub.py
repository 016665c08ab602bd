# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""The model hub, through huggingface_hub: what a commit holds, and where each file's bytes are.

The library resolves, signs in and follows the hub's redirects; the bytes then go through our own fetcher, because the
library starts a cut file again from nothing with each new process and compares sizes, not checksums.
"""

from __future__ import annotations

import os
import traceback
import typing as t
from urllib.parse import urlsplit

from ansible_collections.gpufleet.llm.plugins.module_utils._model_manifest import (
    FileEntry,
    ModelError,
    path_problem,
    refuse,
)

HUB_IMPORT_ERROR: t.Optional[str] = None

#: What the library must not do while we use it: report home, draw bars, read a token that nobody gave us.
LIBRARY_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_OFFLINE": "0",
}


def hub_library() -> t.Any:
    """Import huggingface_hub late and return it, or None with HUB_IMPORT_ERROR set."""
    global HUB_IMPORT_ERROR
    os.environ.update(LIBRARY_ENVIRONMENT)
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.hf_api
    except ImportError:
        HUB_IMPORT_ERROR = traceback.format_exc()
        return None
    return huggingface_hub


def scrub(text: str, token: t.Optional[str]) -> str:
    """Return a text without the token."""
    return text.replace(token, "********") if token else text


class Hub:
    """One hub endpoint.

    Args:
        library: the imported huggingface_hub.
        endpoint: base URL.
        token: a read token, or None to come without one.
    """

    def __init__(self, library: t.Any, endpoint: str, token: t.Optional[str] = None) -> None:
        self.library = library
        self.endpoint = endpoint.rstrip("/")
        self.token = token or None
        # The library's own error derives from its HTTP client's, whose name differs from release to release.
        own = library.errors.HfHubHTTPError
        self.errors: t.Tuple[t.Type[BaseException], ...] = (own, *own.__bases__, OSError, ValueError, RuntimeError)

    def _auth(self) -> t.Any:
        return self.token if self.token else False

    def _refusal(self, exc: BaseException, repository: str, revision: str) -> ModelError:
        status = getattr(getattr(exc, "response", None), "status_code", None)
        said = "%s: %s" % (type(exc).__name__, (str(exc).strip().splitlines() or [""])[0])
        remedy = "Check model_store_hf_endpoint and the way there from the machine that fetches; then run again."
        if status in (401, 403):
            remedy = "Give a token that may read this repository: model_store_hf_token."
        elif status == 404:
            remedy = "Correct gpufleet_models[].source and .revision; a private repository answers 404 without a token."
        return refuse(
            "model.hub",
            expected="the list of files of %s at commit %s" % (repository, revision),
            found=scrub(said, self.token),
            detail="Asked %s%s." % (self.endpoint, " (status %s)" % status if status else ""),
            remedy=remedy,
        )

    def resolve(self, repository: str, revision: str) -> t.List[FileEntry]:
        """Return the files of a commit, sorted, with sizes and what the hub says of their content.

        Raises:
            ModelError: the hub refused, isn't there, or answered for another commit.
        """
        api = self.library.HfApi(endpoint=self.endpoint, token=self._auth())
        try:
            commit = api.repo_info(repository, revision=revision, timeout=30).sha
            listed = list(api.list_repo_tree(repository, recursive=True, revision=revision))
        except self.errors as exc:
            raise self._refusal(exc, repository, revision) from None
        if commit != revision:
            raise refuse(
                "model.hub_commit",
                expected="commit %s" % revision,
                found="commit %s" % commit,
                detail="%s answered for another commit of %s." % (self.endpoint, repository),
                remedy="Set the revision to a commit, or use another endpoint.",
            )
        entries = []
        for item in listed:
            if not isinstance(item, self.library.hf_api.RepoFile):
                continue
            problem = path_problem(item.path)
            if problem:
                raise refuse(
                    "model.manifest_path",
                    expected="a relative path that stays below the model's directory",
                    found=item.path,
                    detail="%s says so of %s: %s." % (self.endpoint, repository, problem),
                    remedy="Don't use this repository.",
                )
            if any(part.startswith(".") for part in item.path.split("/")):
                continue
            sha256 = item.lfs.sha256.lower() if item.lfs else None
            entries.append(FileEntry(item.path, item.size, sha256, None if sha256 else item.blob_id))
        return sorted(entries, key=lambda entry: entry.path)

    def location(self, repository: str, revision: str, path: str) -> t.Tuple[str, t.Dict[str, str]]:
        """Return where a file's bytes are now, and the headers to send there.

        The token goes to the endpoint itself only, never to the storage host that the endpoint points at.
        """
        url = self.library.hf_hub_url(repository, path, revision=revision, endpoint=self.endpoint)
        try:
            answer = self.library.get_hf_file_metadata(
                url, token=self._auth(), timeout=30, endpoint=self.endpoint, retry_on_errors=True
            )
        except self.errors as exc:
            raise self._refusal(exc, repository, revision) from None
        if answer.commit_hash != revision:
            raise refuse(
                "model.hub_commit",
                expected="commit %s" % revision,
                found="commit %s" % answer.commit_hash,
                detail="%s answered for another commit, file %s." % (self.endpoint, path),
                remedy="Use another endpoint.",
            )
        target = str(answer.location)
        if urlsplit(target).scheme != "https" and urlsplit(self.endpoint).scheme == "https":
            raise refuse(
                "model.redirect_tls",
                expected="a location with https://",
                found="%s://%s" % (urlsplit(target).scheme, urlsplit(target).hostname),
                detail="%s sent us there for %s." % (self.endpoint, path),
                remedy="Use another endpoint.",
            )
        headers: t.Dict[str, str] = {}
        ours, theirs = urlsplit(self.endpoint), urlsplit(target)
        if self.token and (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc):
            headers["Authorization"] = "Bearer %s" % self.token
        return target, headers
