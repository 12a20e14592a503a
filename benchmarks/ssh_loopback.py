"""``edgekit bench`` over ssh, to an sshd of its own on loopback: the whole command's time.

    python benchmarks/ssh_loopback.py RUN [--out FILE]

RUN is a finished run of the embedded demo. An sshd with keys of its own listens on a free port of 127.0.0.1;
the command connects, sends the worker and all files of the run, asks them 256 validation samples, compares
with this machine, measures, and cleans up. The limit is edgekit's own: 30 s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from provenance import surroundings

HERE = Path(__file__).resolve().parent
LIMIT_SECONDS = 30.0


def main() -> int:
    """Start an sshd, call the command, and write down how long it took and what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "ssh_loopback.json")
    arguments = parser.parse_args()
    with sshd() as (folder, port):
        environment = {**os.environ, "HOME": str(folder)}
        home = folder / "config"
        home.write_text(
            f"Host board\n HostName 127.0.0.1\n Port {port}\n IdentityFile {folder}/user\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {folder}/known_hosts\n StrictHostKeyChecking yes\n"
        )
        ssh = folder / "ssh"  # OpenSSH finds the user's configuration by the password file, not by HOME
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {home} "$@"\n')
        ssh.chmod(0o755)
        environment["PATH"] = f"{folder}:{environment['PATH']}"
        profile = folder / "board.yaml"
        profile.write_text(f"name: board\ntransport: ssh\naddress: board\npython: {sys.executable}\n")
        record = folder / "record.json"
        argv = [sys.executable, "-m", "edgekit", "bench", str(arguments.run), "--device", str(profile)]
        started = time.monotonic()
        done = subprocess.run([*argv, "--out", str(record), "--quiet"], env=environment, check=False)
        seconds = time.monotonic() - started
        found = (
            json.loads(record.read_text()) if record.exists() else {"results": [], "failures": ["nothing"]}
        )
    files = [one["artifact"] for one in found["results"]]
    result = {
        "seconds": round(seconds, 1),
        "limit_seconds": LIMIT_SECONDS,
        "files": files,
        "failures": found["failures"],
        "samples": sum(len(part) for one in found["results"] for part in one["rounds"]),
        **surroundings(("onnxruntime", "ai-edge-litert", "numpy")),
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{len(files)} files over ssh in {seconds:.1f} s")
    return int(done.returncode != 0 or seconds > LIMIT_SECONDS)


@contextlib.contextmanager
def sshd() -> Iterator[tuple[Path, int]]:
    """An sshd on loopback; its folder with the keys, and its port."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SystemExit("needs sshd: apt install openssh-server")
    folder = Path(tempfile.mkdtemp(prefix="edgekit-sshd-"))
    for name in ("host", "user"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([program, "-D", "-f", str(folder / "sshd_config")])
    try:
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield folder, port
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    raise SystemExit(main())
