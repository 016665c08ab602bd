# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""What a model is made of: sources, manifests, version ids, and the refusals that need no file to be read. Pure."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import typing as t
from urllib.parse import quote, urlsplit

from ansible_collections.gpufleet.llm.plugins.module_utils._finding import Finding, finding

NAME_RE = re.compile(r"^[a-z0-9]([a-z0-9.-]{0,58}[a-z0-9])?$")
SHA256_RE = re.compile(r"^[0-9a-f]{64}$")
COMMIT_RE = re.compile(r"^[0-9a-f]{40}$")
REPO_RE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
SUM_LINE_RE = re.compile(r"^([0-9A-Fa-f]{64}) [ *](.+)$")

#: File names that can only be a pickle: refused before a byte is fetched.
PICKLE_NAMES = ("*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "pytorch_model*.bin", "adapter_model.bin")
#: Engines that load a Hugging Face directory; the others take a single GGUF file.
ENGINES_WITHOUT_CONFIG = ("llama_cpp", "ollama")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MANIFEST_VARIABLE = "gpufleet_models[].manifest or gpufleet_models[].manifest_file"


class ModelError(Exception):
    """A refusal with one or more findings."""

    def __init__(self, findings: t.Sequence[Finding]) -> None:
        super().__init__("; ".join(str(f["check"]) for f in findings))
        self.findings = list(findings)


def refuse(check: str, *, expected: t.Any, found: t.Any, detail: str = "", remedy: str) -> ModelError:
    """Return (not raise) a refusal made of a single finding."""
    return ModelError([finding(check, False, expected=expected, found=found, detail=detail, remedy=remedy)])


class FileEntry(t.NamedTuple):
    """One file of a model. ``sha256`` is None until known, ``size`` (bytes) too; ``git_sha1`` is a hub's blob id."""

    path: str
    size: t.Optional[int]
    sha256: t.Optional[str]
    git_sha1: t.Optional[str] = None

    @property
    def key(self) -> str:
        """A file name that stands for the content: the sha256, or the git blob id where that is all we know."""
        if self.sha256:
            return self.sha256
        return "git-%s" % self.git_sha1

    def as_dict(self) -> t.Dict[str, t.Any]:
        """Return the entry as it travels in module arguments and JSON files."""
        return {"path": self.path, "size": self.size, "sha256": self.sha256, "git_sha1": self.git_sha1}


def entry_from(raw: t.Mapping[str, t.Any]) -> FileEntry:
    """Return the entry that as_dict() made."""
    return FileEntry(raw["path"], raw.get("size"), raw.get("sha256"), raw.get("git_sha1"))


class Source(t.NamedTuple):
    """Where a model comes from: ``scheme`` is file, http, https or huggingface; ``location`` is what follows it."""

    scheme: str
    location: str
    text: str


def path_problem(path: str) -> str:
    """Return why a file name of a manifest is refused, or an empty string."""
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it is absolute"
    if "\\" in path or any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "it holds a backslash or a control character"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "it holds an empty, '.' or '..' part"
    if any(part.startswith(".gpufleet") for part in parts):
        return "names that start with .gpufleet are ours"
    if len(path.encode("utf-8")) > 512 or any(len(part.encode("utf-8")) > 255 for part in parts):
        return "it is too long"
    return ""


def parse_sha256sums(text: str, where: str) -> t.Dict[str, t.Any]:
    """Read the output format of sha256sum(1).

    Returns:
        ``{path: sha256}``.

    Raises:
        ModelError: a line isn't ``<64 hex>  <path>``, or a path comes twice with different sums.
    """
    entries: t.Dict[str, t.Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = SUM_LINE_RE.match(line)
        if not match:
            raise refuse(
                "model.manifest_file",
                expected="lines '<64 hex digits>  <path>' as sha256sum prints them",
                found="line %d: %r" % (number, line[:80]),
                detail="Read from %s." % where,
                remedy="Write the file with 'sha256sum $(find . -type f)' in the model's directory.",
            )
        path = match.group(2)
        path = path[2:] if path.startswith("./") else path
        sha256 = match.group(1).lower()
        if entries.get(path, sha256) != sha256:
            raise refuse(
                "model.manifest_file",
                expected="one checksum for each file",
                found="two for %s" % path,
                detail="Read from %s." % where,
                remedy="Remove the wrong line.",
            )
        entries[path] = sha256
    return entries


def manifest_entries(name: str, raw: t.Mapping[str, t.Any]) -> t.List[FileEntry]:
    """Turn an inline manifest ``{path: sha256 | {sha256, size}}`` into entries sorted by path.

    Raises:
        ModelError: holds every bad line.
    """
    entries: t.List[FileEntry] = []
    bad: t.List[Finding] = []
    for path, value in sorted(raw.items()):
        problem = path_problem(str(path))
        if problem:
            bad.append(
                finding(
                    "model.manifest_path",
                    False,
                    expected="a relative path that stays below the model's directory",
                    found=str(path),
                    detail="Model %s: %s." % (name, problem),
                    remedy="Correct %s." % MANIFEST_VARIABLE,
                )
            )
            continue
        sha256: t.Any = value.get("sha256") if isinstance(value, dict) else value
        size: t.Any = value.get("size") if isinstance(value, dict) else None
        sha256 = str(sha256 or "").lower()
        if not SHA256_RE.match(sha256) or not (size is None or (isinstance(size, int) and size >= 0)):
            bad.append(
                finding(
                    "model.manifest_sha256",
                    False,
                    expected="64 hex digits, or {sha256: 64 hex digits, size: bytes}",
                    found=str(value)[:80],
                    detail="Model %s, file %s." % (name, path),
                    remedy="Correct %s: 'sha256sum FILE' prints it." % MANIFEST_VARIABLE,
                )
            )
            continue
        entries.append(FileEntry(str(path), size, sha256))
    if bad:
        raise ModelError(bad)
    return entries


def manifest_text(entries: t.Iterable[FileEntry]) -> str:
    """Return the sorted manifest: one ``<sha256>  <path>`` a line."""
    return "".join("%s  %s\n" % (entry.sha256, entry.path) for entry in sorted(entries, key=lambda e: e.path))


def manifest_sha256(entries: t.Iterable[FileEntry]) -> str:
    """Return the sha256 of the sorted manifest."""
    return hashlib.sha256(manifest_text(entries).encode("utf-8")).hexdigest()


def version_id(entries: t.Iterable[FileEntry]) -> str:
    """Return the version id: the first 16 hex digits of the manifest's sha256."""
    return manifest_sha256(entries)[:16]


def parse_source(text: str) -> t.Optional[Source]:
    """Split a source; None where the scheme is unknown or nothing follows it."""
    for scheme in ("file", "huggingface"):
        if text.startswith(scheme + ":"):
            location = text[len(scheme) + 1 :]
            if scheme == "file" and location.startswith("//"):
                location = location[2:]
            return Source(scheme, location, text) if location else None
    for scheme in ("https", "http"):
        if text.startswith(scheme + "://"):
            return Source(scheme, text, text) if urlsplit(text).hostname else None
    return None


def file_url(base: str, path: str) -> str:
    """Return the URL of a file below a base URL, quoted."""
    return "%s/%s" % (base.rstrip("/"), quote(path))


def is_loopback(url: str) -> bool:
    """Whether a URL names this very machine."""
    return (urlsplit(url).hostname or "") in LOOPBACK


def _check_source(model: t.Mapping[str, t.Any], allow_http: bool, hf_endpoint: str) -> t.Iterator[Finding]:
    name, text = str(model.get("name")), str(model.get("source") or "")
    variable = "gpufleet_models[name=%s].source" % name
    source = parse_source(text)
    if source is None:
        yield finding(
            "model.source",
            False,
            expected="file:/absolute/directory, https://host/base/ or huggingface:organisation/repository",
            found=text or "nothing",
            detail="Read from %s." % variable,
            remedy="Set %s to one of the three forms." % variable,
        )
        return
    if source.scheme == "file" and not source.location.startswith("/"):
        yield finding(
            "model.source",
            False,
            expected="an absolute directory on the control node",
            found=text,
            detail="Read from %s." % variable,
            remedy="Write file:/absolute/directory.",
        )
    if source.scheme in ("http", "https"):
        if "@" in urlsplit(text).netloc:
            yield finding(
                "model.source",
                False,
                expected="a URL without a user or password",
                found="https://…@%s" % urlsplit(text).hostname,
                detail="Read from %s; the source is written to the host's record and to the log." % variable,
                remedy="Serve the files without credentials in the URL; every file is checked by its sha256.",
            )
        if not model.get("manifest") and not model.get("manifest_file"):
            yield finding(
                "model.manifest",
                False,
                expected="a sha256 for every file",
                found="no manifest",
                detail="Model %s comes from %s, which doesn't say what is right." % (name, text),
                remedy="Set gpufleet_models[name=%s].manifest, or .manifest_file to a file that sha256sum wrote."
                % name,
            )
        if source.scheme == "http" and not allow_http:
            yield finding(
                "model.source_tls",
                False,
                expected="https://",
                found=text,
                detail="Read from %s." % variable,
                remedy="Use https://, or set model_store_allow_http: true where a network of your own carries it.",
            )
    if source.scheme == "huggingface":
        if not REPO_RE.match(source.location):
            yield finding(
                "model.source",
                False,
                expected="huggingface:organisation/repository",
                found=text,
                detail="Read from %s." % variable,
                remedy="Name the organisation and the repository, nothing else; the commit goes to .revision.",
            )
        revision = str(model.get("revision") or "")
        if not COMMIT_RE.match(revision):
            yield finding(
                "model.revision",
                False,
                expected="a commit: 40 lower-case hex digits",
                found=revision or "nothing",
                detail="gpufleet_models[name=%s].revision; a branch or a tag can change under you." % name,
                remedy="Set it to the commit that the hub shows under 'Files and versions'.",
            )
        parts = urlsplit(hf_endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            yield finding(
                "model.hf_endpoint",
                False,
                expected="https://host",
                found=hf_endpoint,
                detail="Read from model_store_hf_endpoint.",
                remedy="Set model_store_hf_endpoint to the hub's URL.",
            )
        elif parts.scheme == "http" and not (allow_http and is_loopback(hf_endpoint)):
            yield finding(
                "model.hf_endpoint_tls",
                False,
                expected="https:// (http:// only to this very machine, with model_store_allow_http: true)",
                found=hf_endpoint,
                detail="The token and the list of files would travel in the clear.",
                remedy="Set model_store_hf_endpoint to an https:// URL.",
            )


def check_models(
    models: t.Sequence[t.Any], *, allow_http: bool, hf_endpoint: str, fetch_on: str = "control"
) -> t.List[Finding]:
    """Return every refusal that the statement of the models alone calls for."""
    found: t.List[Finding] = []
    seen: t.Dict[str, str] = {}
    for position, model in enumerate(models):
        if not isinstance(model, dict):
            found.append(
                finding(
                    "model.statement",
                    False,
                    expected="a dictionary with name and source",
                    found=type(model).__name__,
                    detail="gpufleet_models[%d]." % position,
                    remedy="Write one dictionary for each model.",
                )
            )
            continue
        name = str(model.get("name") or "")
        if not NAME_RE.match(name):
            found.append(
                finding(
                    "model.name",
                    False,
                    expected="1 to 60 of a-z, 0-9, '.' and '-', beginning and ending with a letter or digit",
                    found=name or "nothing",
                    detail="gpufleet_models[%d].name; it becomes a directory and part of a unit's name." % position,
                    remedy="Choose another name.",
                )
            )
            continue
        statement = "%s %s" % (model.get("source"), model.get("revision"))
        if seen.get(name, statement) != statement:
            found.append(
                finding(
                    "model.name_twice",
                    False,
                    expected="one source for each name",
                    found="%s stated twice, with different sources" % name,
                    detail="gpufleet_models[%d]." % position,
                    remedy="Give the second model a name of its own.",
                )
            )
            continue
        seen[name] = statement
        found.extend(_check_source(model, allow_http, hf_endpoint))
    return found


def selected(path: str, include: t.Sequence[str], exclude: t.Sequence[str]) -> bool:
    """Whether a path passes the include and exclude globs; ``*`` matches '/' too."""
    if include and not any(fnmatch.fnmatchcase(path, glob) for glob in include):
        return False
    return not any(fnmatch.fnmatchcase(path, glob) for glob in exclude)


def check_listing(
    model: t.Mapping[str, t.Any], paths: t.Sequence[str], *, allow_pickle: bool, where: str
) -> t.List[Finding]:
    """Return what the names of a model's files alone call for: refusals and warnings."""
    name = str(model.get("name"))
    found: t.List[Finding] = []
    if "config.json" not in paths and model.get("engine", "vllm") not in ENGINES_WITHOUT_CONFIG:
        found.append(
            finding(
                "model.config_json",
                False,
                expected="config.json at the top of the model's directory",
                found="%d files: %s%s" % (len(paths), ", ".join(sorted(paths)[:5]), ", …" if len(paths) > 5 else ""),
                detail="gpufleet_models[name=%s].source = %s." % (name, where),
                remedy="Point the source at the directory that holds config.json and the weights.",
            )
        )
    pickles = [p for p in sorted(paths) if any(fnmatch.fnmatchcase(p.rsplit("/", 1)[-1], g) for g in PICKLE_NAMES)]
    if pickles and not allow_pickle:
        found.append(pickle_finding(name, pickles, "by their names"))
    code = [p for p in sorted(paths) if p.endswith(".py")]
    if code:
        found.append(
            finding(
                "model.remote_code",
                False,
                severity="warning",
                expected="no Python files beside the weights",
                found=", ".join(code[:5]),
                detail="Model %s; the engine runs them only if it is told to trust remote code." % name,
                remedy="Read them before you set trust_remote_code, or leave them out with .exclude: ['*.py'].",
            )
        )
    return found


def pickle_finding(name: str, paths: t.Sequence[str], how: str) -> Finding:
    """Return the refusal of pickle weights."""
    return finding(
        "model.pickle",
        False,
        expected="weights that can't run code when they are loaded (safetensors, GGUF)",
        found="pickle files, %s: %s" % (how, ", ".join(paths[:5])),
        detail="Model %s." % name,
        remedy="Take a safetensors copy, leave them out with .exclude: ['*.bin', '*.pt'], "
        "or set model_store_allow_pickle: true.",
    )


def human(size: t.Optional[int]) -> str:
    """Return a number of bytes for a person: ``4.2 MiB``."""
    if size is None:
        return "unknown size"
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return "%d bytes" % size if unit == "bytes" else "%.1f %s" % (value, unit)
        value /= 1024
    return "%.1f TiB" % value


def check_disk(path: str, needed: int, margin: int, available: int, variable: str) -> t.List[Finding]:
    """Return the refusal of a disk that can't take ``needed`` + ``margin`` bytes, or nothing."""
    if needed == 0 or needed + margin <= available:
        return []
    return [
        finding(
            "model.disk_space",
            False,
            expected="%s free (%s of files, %s of margin)" % (human(needed + margin), human(needed), human(margin)),
            found="%s available at %s" % (human(available), path),
            detail="Needed %d bytes, available %d bytes." % (needed + margin, available),
            remedy="Free or add space at %s, or set %s to a path on a larger disk." % (path, variable),
        )
    ]
