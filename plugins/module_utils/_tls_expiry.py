# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This module_util is private to the collection.
"""Says ahead when the proxy's certificates and revocation lists end: an expired list refuses every client.

The role llm_proxy places this very file on the host, where a timer runs it: it needs the standard library and openssl
only. It writes a file of metrics for node_exporter's textfile collector, and a line to the journal for each end that
is near; its exit status is 1 then, so that the unit is among the failed ones until it is renewed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
import typing as t

PEM = re.compile(r"-----BEGIN (?P<type>CERTIFICATE|X509 CRL)-----.*?-----END (?P=type)-----", re.DOTALL)
FILES = (("server", "server.crt"), ("authority", "ca.crt"), ("revocation_list", "crl.pem"))
DAY_SECONDS = 86400
REMEDIES = {
    "server": "Run playbooks/deploy_fleet.yml, it renews the certificate.",
    "authority": "Let another authority follow: playbooks/rotate_authority.yml.",
    "revocation_list": "Run playbooks/renew_crl.yml and find out why its timer didn't; once it has ended, every client "
    "is refused.",
}
# systemd's prefixes: what journalctl -p err and -p warning show.
ERROR, WARNING = "<3>", "<4>"


class End(t.NamedTuple):
    """When something ends: its kind (one of FILES), its subject or issuer, its path, seconds since the epoch or None.

    None is something that couldn't be read; ``problem`` says why.
    """

    kind: str
    name: str
    path: str
    not_after: t.Optional[float]
    problem: str = ""


Openssl = t.Callable[[t.Sequence[str], str], t.Tuple[int, str]]


def ask_openssl(arguments: t.Sequence[str], text: str) -> t.Tuple[int, str]:
    """Return openssl's exit status and what it said about a text. 127 where there is no openssl."""
    try:
        done = subprocess.run(
            ["openssl", *arguments], input=text, capture_output=True, encoding="utf-8", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return 127, str(exc)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def parse_answer(said: str) -> t.Tuple[str, t.Optional[float]]:
    """Return the name and the end, in seconds since the epoch, of an answer of openssl; None where it states none."""
    fields = dict(line.partition("=")[::2] for line in said.splitlines())
    name = (fields.get("subject") or fields.get("issuer") or "").strip()
    end = fields.get("notAfter") or fields.get("nextUpdate") or ""
    try:
        return name, float(ssl.cert_time_to_seconds(end.strip()))
    except ValueError:
        return name, None


def read_ends(directory: str, openssl: Openssl = ask_openssl) -> t.List[End]:
    """Return the ends of all that is in the proxy's directory of certificates."""
    ends: t.List[End] = []
    for kind, file_name in FILES:
        path = os.path.join(directory, file_name)
        try:
            with open(path, encoding="ascii") as handle:
                blocks = list(PEM.finditer(handle.read()))
        except (OSError, UnicodeDecodeError) as exc:
            ends.append(End(kind, "", path, None, str(exc)))
            continue
        if not blocks:
            ends.append(End(kind, "", path, None, "it holds nothing in PEM"))
        for block in blocks:
            if block["type"] == "CERTIFICATE":
                arguments = ["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-enddate"]
            else:
                arguments = ["crl", "-noout", "-issuer", "-nameopt", "RFC2253", "-nextupdate"]
            status, said = openssl(arguments, block.group(0))
            name, not_after = parse_answer(said) if status == 0 else ("", None)
            problem = "" if not_after is not None else "openssl says: %s" % " ".join(said.split())[:200]
            ends.append(End(kind, name, path, not_after, problem))
            if kind == "server":
                break  # what follows are intermediates
    return ends


def days_left(end: End, now: float) -> t.Optional[float]:
    """Return the days until an end, one decimal, negative once it has come; None where it isn't known."""
    return None if end.not_after is None else round((end.not_after - now) / DAY_SECONDS, 1)


def is_near(end: End, now: float, warning_days: t.Mapping[str, float]) -> bool:
    """Say whether somebody has to hear of an end: it is near, it has come, or it isn't known."""
    return end.not_after is None or end.not_after - now < warning_days[end.kind] * DAY_SECONDS


def iso(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def line_of(end: End, now: float) -> str:
    """Return an end as a line for the journal, with its priority."""
    what = "%s of %s (%s)" % (end.kind.replace("_", " "), end.name or "nobody known", end.path)
    if end.not_after is None:
        return "%s%s can't be read: %s" % (ERROR, what, end.problem)
    left = end.not_after - now
    when = "ended" if left <= 0 else "ends in %.1f days," % (left / DAY_SECONDS)
    return "%s%s %s %s. %s" % (ERROR if left <= 0 else WARNING, what, when, iso(end.not_after), REMEDIES[end.kind])


def metrics(ends: t.Sequence[End], now: float, warning_days: t.Mapping[str, float]) -> str:
    """Return the ends in Prometheus' text format."""
    lines = [
        "# HELP gpufleet_tls_not_after_timestamp_seconds When a certificate or revocation list of the proxy ends.",
        "# TYPE gpufleet_tls_not_after_timestamp_seconds gauge",
    ]
    labels = ['{kind="%s",name="%s"}' % (end.kind, re.sub(r'[\\"\n]', "_", end.name)) for end in ends]
    for end, label in zip(ends, labels):
        if end.not_after is not None:
            lines.append("gpufleet_tls_not_after_timestamp_seconds%s %d" % (label, end.not_after))
    lines += [
        "# HELP gpufleet_tls_ends_soon Whether it ends within the days to warn ahead, has ended or can't be read.",
        "# TYPE gpufleet_tls_ends_soon gauge",
    ]
    for end, label in zip(ends, labels):
        lines.append("gpufleet_tls_ends_soon%s %d" % (label, is_near(end, now, warning_days)))
    lines += [
        "# HELP gpufleet_tls_checked_timestamp_seconds When this was looked at.",
        "# TYPE gpufleet_tls_checked_timestamp_seconds gauge",
        "gpufleet_tls_checked_timestamp_seconds %d" % now,
    ]
    return "\n".join(lines) + "\n"


def write_whole(path: str, text: str) -> None:
    """Replace a file that others may read."""
    descriptor, temporary = tempfile.mkstemp(prefix=".%s." % os.path.basename(path), dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
            os.fchmod(handle.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def say(text: str) -> None:
    """Write a line for who started this program; there is no module here to answer for it."""
    sys.stdout.write(text + "\n")


def main(arguments: t.Optional[t.Sequence[str]] = None) -> int:
    """Look, write, say. Returns 1 where somebody has to hear of an end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--directory", required=True)
    parser.add_argument("--metrics-file")
    parser.add_argument("--warning-days", type=float, default=15)
    parser.add_argument("--authority-warning-days", type=float, default=90)
    parser.add_argument("--json", action="store_true", help="print every end, and exit with 0")
    given = parser.parse_args(arguments)
    warning_days = dict.fromkeys((kind for kind, _file in FILES), given.warning_days)
    warning_days["authority"] = given.authority_warning_days
    now = time.time()
    ends = read_ends(given.directory)
    near = [end for end in ends if is_near(end, now, warning_days)]
    if given.metrics_file:
        write_whole(given.metrics_file, metrics(ends, now, warning_days))
    if given.json:
        say(json.dumps([dict(end._asdict(), days_left=days_left(end, now), near=end in near) for end in ends]))
        return 0
    for end in near:
        say(line_of(end, now))
    if not near:
        first = min(ends, key=lambda end: end.not_after or 0)
        say("<6>nothing ends soon; the first is %s of %s, in %s days" % (first.kind, first.name, days_left(first, now)))
    return 1 if near else 0


if __name__ == "__main__":
    raise SystemExit(main())
