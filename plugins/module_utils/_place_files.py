# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Compare wanted files, directories and links with a host, and put them in place together.

Reading (`plan`), proving (`stage`) and writing (`apply`) are apart: `plan` never writes, `stage` writes only below
a private temporary directory, `apply` writes every new content beside its destination before the first rename, so
that a full disk is met while nothing has been replaced yet.
"""

from __future__ import annotations

import glob
import grp
import os
import pwd
import shutil
import stat
import tempfile
import typing as t

HIDDEN = "(secret content, not shown)\n"


class PlaceError(Exception):
    """A wanted item that can't be placed; the message names the path, what was found and the remedy."""


class Change(t.NamedTuple):
    """One difference between what is wanted and what the host has.

    ``kind`` is ``directory``, ``file``, ``link`` or ``absent``; ``content`` says whether bytes differ (a change of
    only owner, group or mode leaves it false); ``before`` and ``after`` are the texts shown by ``--diff``.
    """

    kind: str
    path: str
    content: bool
    before: str
    after: str
    item: t.Dict[str, t.Any]


def user_id(name: t.Optional[str]) -> t.Optional[int]:
    """Return a user's numeric id, None when no user is wanted. Raises KeyError for an unknown name."""
    return None if name is None else pwd.getpwnam(name).pw_uid


def group_id(name: t.Optional[str]) -> t.Optional[int]:
    """Return a group's numeric id, None when no group is wanted. Raises KeyError for an unknown name."""
    return None if name is None else grp.getgrnam(name).gr_gid


def _attributes(item: t.Dict[str, t.Any], found: os.stat_result) -> t.Tuple[str, str]:
    """Return (before, after) lines for owner, group and mode where they differ, empty where they don't."""
    before: t.List[str] = []
    after: t.List[str] = []
    wanted_mode = int(item["mode"], 8)
    found_mode = stat.S_IMODE(found.st_mode)
    if wanted_mode != found_mode:
        before.append("mode: %04o\n" % found_mode)
        after.append("mode: %04o\n" % wanted_mode)
    for what, lookup, number in (("owner", user_id, found.st_uid), ("group", group_id, found.st_gid)):
        name = item.get(what)
        try:
            wanted = lookup(name)
        except KeyError:
            wanted = -1  # not on the host yet: `apply` refuses it, check mode reports it as a change
        if wanted is not None and wanted != number:
            before.append("%s: %s\n" % (what, number))
            after.append("%s: %s\n" % (what, name))
    return "".join(before), "".join(after)


def _lstat(path: str) -> t.Optional[os.stat_result]:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _plan_directory(item: t.Dict[str, t.Any]) -> t.Optional[Change]:
    path = item["path"]
    found = _lstat(path)
    if found is None:
        return Change("directory", path, True, "", "directory\nmode: %s\n" % item["mode"], item)
    if not stat.S_ISDIR(found.st_mode):
        raise PlaceError("%s: expected a directory, found another kind of file. Remedy: move it away." % path)
    before, after = _attributes(item, found)
    return Change("directory", path, False, before, after, item) if after else None


def _plan_file(item: t.Dict[str, t.Any]) -> t.Optional[Change]:
    path = item["dest"]
    wanted: bytes = item["data"]
    found = _lstat(path)
    shown = HIDDEN if item.get("secret") else wanted.decode("utf-8", "replace")
    if found is None:
        return Change("file", path, True, "", shown, item)
    if stat.S_ISDIR(found.st_mode):
        raise PlaceError("%s: expected a file, found a directory. Remedy: move it away." % path)
    if stat.S_ISLNK(found.st_mode):
        return Change("file", path, True, "link to %s\n" % os.readlink(path), shown, item)
    before_attributes, after_attributes = _attributes(item, found)
    with open(path, "rb") as handle:
        current = handle.read()
    if current != wanted:
        before = (
            HIDDEN.replace("not shown", "not shown, differs")
            if item.get("secret")
            else current.decode("utf-8", "replace")
        )
        return Change("file", path, True, before, shown, item)
    if after_attributes:
        return Change("file", path, False, before_attributes, after_attributes, item)
    return None


def _plan_link(item: t.Dict[str, t.Any]) -> t.Optional[Change]:
    path = item["path"]
    found = _lstat(path)
    after = "link to %s\n" % item["target"]
    if found is None:
        return Change("link", path, True, "", after, item)
    if not stat.S_ISLNK(found.st_mode):
        raise PlaceError("%s: expected a link or nothing, found another kind of file. Remedy: move it away." % path)
    target = os.readlink(path)
    if target == item["target"]:
        return None
    return Change("link", path, True, "link to %s\n" % target, after, item)


def unlisted(wanted: t.Dict[str, t.List[t.Any]], patterns: t.Sequence[str]) -> t.List[str]:
    """Return what the glob patterns match on the host and ``wanted`` doesn't name."""
    named = {d["path"] for d in wanted["directories"]} | {f["dest"] for f in wanted["files"]}
    named |= {link["path"] for link in wanted["links"]} | set(wanted["absent"])
    return sorted({path for pattern in patterns for path in glob.glob(pattern)} - named)


def plan(wanted: t.Dict[str, t.List[t.Any]]) -> t.List[Change]:
    """Return what differs, in the order in which it is to be applied.

    Args:
        wanted: ``directories`` [{path, owner, group, mode}], ``files`` [{dest, data (bytes), owner, group, mode,
            secret}], ``links`` [{path, target}], ``absent`` [path].

    Raises:
        PlaceError: a path is taken by another kind of file, or is listed twice.
    """
    seen: t.Set[str] = set()
    paths = [d["path"] for d in wanted["directories"]] + [f["dest"] for f in wanted["files"]]
    paths += [link["path"] for link in wanted["links"]] + list(wanted["absent"])
    for path in paths:
        if not path.startswith("/") or path.startswith("//") or os.path.normpath(path) != path.rstrip("/"):
            raise PlaceError("%r: expected an absolute path without '..' or doubled slashes." % path)
        if path in seen:
            raise PlaceError("%s: listed twice. Remedy: keep one of the two." % path)
        seen.add(path)
    found: t.List[t.Optional[Change]] = [_plan_directory(item) for item in wanted["directories"]]
    found += [_plan_file(item) for item in wanted["files"]]
    found += [_plan_link(item) for item in wanted["links"]]
    for path in wanted["absent"]:
        if _lstat(path) is not None:
            found.append(Change("absent", path, True, "present\n", "", {"path": path}))
    return [change for change in found if change is not None]


def stage(wanted: t.Dict[str, t.List[t.Any]]) -> str:
    """Write every wanted file below a fresh private directory that mirrors absolute paths; return the directory."""
    root = tempfile.mkdtemp(prefix="gpufleet-stage-")
    for item in wanted["files"]:
        path = root + item["dest"]
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            handle.write(item["data"])
    for item in wanted["links"]:
        path = root + item["path"]
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.symlink(item["target"], path)
    return root


def _ids(item: t.Dict[str, t.Any]) -> t.Tuple[int, int]:
    """Return (uid, gid), -1 where the item wants none, as `os.chown` takes them."""
    result = []
    for what, lookup in (("owner", user_id), ("group", group_id)):
        try:
            number = lookup(item.get(what))
        except KeyError as exc:
            raise PlaceError(
                "%s: %s %r doesn't exist on this host. Remedy: create it before the files are placed."
                % (item.get("dest") or item.get("path"), what, item.get(what))
            ) from exc
        result.append(-1 if number is None else number)
    return result[0], result[1]


def _write_beside(item: t.Dict[str, t.Any]) -> str:
    """Write the item's bytes to a synced temporary file beside its destination; return that file's path."""
    dest = item["dest"]
    uid, gid = _ids(item)
    descriptor, temporary = tempfile.mkstemp(prefix=".%s." % os.path.basename(dest), dir=os.path.dirname(dest))
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(item["data"])
            handle.flush()
            os.fchown(handle.fileno(), uid, gid)
            os.fchmod(handle.fileno(), int(item["mode"], 8))
            os.fsync(handle.fileno())
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _replace_link(path: str, target: str) -> None:
    temporary = "%s.new-%d" % (path, os.getpid())
    os.symlink(target, temporary)
    os.replace(temporary, path)


def apply(changes: t.List[Change]) -> None:
    """Put the planned changes in place.

    Directories come first; then every file's new content is written beside its destination; only when all of them
    lie on disk are they renamed into place, links switched and unwanted paths removed.

    Raises:
        PlaceError: an owner or group doesn't exist.
        OSError: the host refused (disk full, read-only); new contents not yet renamed are removed again.
    """
    for change in changes:
        if change.kind != "directory":
            continue
        uid, gid = _ids(change.item)
        os.makedirs(change.path, exist_ok=True)
        os.chown(change.path, uid, gid)
        os.chmod(change.path, int(change.item["mode"], 8))
    written: t.List[t.Tuple[str, str]] = []
    try:
        for change in changes:
            if change.kind == "file":
                written.append((_write_beside(change.item), change.path))
        while written:
            os.replace(*written[0])
            written.pop(0)
    finally:
        for temporary, _dest in written:
            os.unlink(temporary)
    for change in changes:
        if change.kind == "link":
            _replace_link(change.path, change.item["target"])
        elif change.kind == "absent":
            if os.path.isdir(change.path) and not os.path.islink(change.path):
                shutil.rmtree(change.path)
            else:
                os.unlink(change.path)


def diffs(changes: t.List[Change]) -> t.List[t.Dict[str, str]]:
    """Return one ``--diff`` record a change; secret contents are never in it."""
    return [{"before_header": c.path, "after_header": c.path, "before": c.before, "after": c.after} for c in changes]
