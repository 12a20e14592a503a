"""Ask pip-audit for known vulnerabilities of the installed packages, and say what could be looked up at all.

python scripts/audit.py PIP_AUDIT [--strict]        (``make audit`` installs it and calls this)

pip-audit ends with 0 where its service knows none of the packages, as behind a mirror of PyPI: that is no
audit. Here it is said as such, and is a failure with --strict, as before a release.
Exit code: 0 nothing found, or not audited; 1 vulnerabilities, or not audited with --strict.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from typing import Any

SHOWN = 10
OURS = ("edgekit-toolkit",)  # on no index


def main(arguments: list[str]) -> int:
    strict = "--strict" in arguments
    (tool,) = [one for one in arguments if one != "--strict"]
    found, failure = ask(tool)
    if found is None:
        print(f"NOT AUDITED: {failure}")
        return int(strict)
    known = [one for one in found if "skip_reason" not in one and one["name"] not in OURS]
    unknown = [one["name"] for one in found if "skip_reason" in one and one["name"] not in OURS]
    bad = [one for one in known if one["vulns"]]
    for one in bad:
        for fault in one["vulns"]:
            fixed = ", ".join(fault.get("fix_versions") or ()) or "no version yet"
            print(f"{one['name']} {one['version']}: {fault['id']}, mended in {fixed}")
    if unknown:
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        named = ", ".join(unknown[:SHOWN]) + more
        print(f"NOT AUDITED: {len(unknown)} of {len(known) + len(unknown)} packages: {named}")
    print(f"audited: {len(known)} packages, {len(bad)} with known vulnerabilities")
    return int(bool(bad) or (strict and bool(unknown or not known)))


def ask(tool: str) -> tuple[list[dict[str, Any]] | None, str]:
    """A row for each installed package, or None and why there are none."""
    where = sysconfig.get_path("purelib")
    command = [tool, "--path", where, "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        return list(json.loads(done.stdout)["dependencies"]), ""
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return None, lines[-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
