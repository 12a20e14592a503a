"""Debian packages: chosen and fetched by apt-get with a state of its own, unpacked and never installed.

The host's package lists, its cache and its configuration stay as they are, and no root is needed. What apt
knows of the network (proxies, certificates) is taken over; the signatures of Debian's archive are checked.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.devices.board import host
from edgekit.errors import DeviceError, MissingExtraError

SUITE = "bookworm"  # Debian 12, whose python3 is 3.11
BACKPORTS = f"{SUITE}-backports"
MIRROR_VARIABLE = "EDGEKIT_DEBIAN_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_NETWORK = re.compile(r"Acquire::(http|https|socks5h?|Retries|ForceIPv[46])\b", re.IGNORECASE)
# 'http://mirror/pool/x_1.deb' x_1%3a2_arm64.deb 1234 SHA256:…
_FETCH = re.compile(r"'[^']+' (?P<file>\S+\.deb) (?P<size>\d+)")
# Documentation and translations: a third of the files, and nobody reads them there.
_LEFT_OUT = ("doc", "doc-base", "info", "lintian", "locale", "man", "bug", "bash-completion")


@dataclass(frozen=True)
class Mirror:
    """Where Debian's archive and its security updates are fetched from."""

    main: str
    security: str


def debian_mirror() -> Mirror:
    """$EDGEKIT_DEBIAN_MIRROR ("MAIN" or "MAIN SECURITY"), else the mirror that this host itself uses.

    Raises DeviceError: neither is there.
    """
    named = os.environ.get(MIRROR_VARIABLE, "").split()
    if named:
        main = named[0].rstrip("/")
        return Mirror(main, named[1].rstrip("/") if len(named) > 1 else f"{main}-security")
    listed = host.run(
        [host.command("apt-get"), "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"],
        what="apt-get can't say which mirror this machine uses",
        failure=DeviceError,
    )
    return parse_mirror(listed)


def parse_mirror(listed: str) -> Mirror:
    """The mirror out of lines of ORIGIN|LABEL|URI. Raises DeviceError: none of them is Debian's."""
    by_label: dict[str, str] = {}
    for line in listed.splitlines():
        origin, label, uri = line.split("|", 2)
        if origin == "Debian":
            by_label.setdefault(label, uri.rstrip("/"))
    main = by_label.get("Debian")
    if main is None:
        raise DeviceError(
            "no mirror of Debian is known to this machine's apt",
            expected="a Debian archive in apt's sources, and its package lists",
            next=f"run `apt-get update` once, or set {MIRROR_VARIABLE} to the address of a Debian mirror",
        )
    return Mirror(main, by_label.get("Debian-Security", f"{main}-security"))


def sources(mirror: Mirror) -> str:
    """The list of sources for the board: the release, its updates, security, and backports for adbd."""
    lines = (
        (mirror.main, SUITE),
        (mirror.main, f"{SUITE}-updates"),
        (mirror.security, f"{SUITE}-security"),
        (mirror.main, BACKPORTS),
    )
    return "".join(f"deb [signed-by={KEYRING}] {address} {suite} main\n" for address, suite in lines)


class Apt:
    """apt-get for one architecture, as on a machine on which nothing is installed."""

    def __init__(self, folder: Path, architecture: str) -> None:
        """``folder`` keeps apt's state, and in ``archives/`` what was downloaded. ``update`` comes first."""
        self._folder = folder / architecture
        self._architecture = architecture
        self._archives = folder / "archives"
        self._env = {"APT_CONFIG": str(self._folder / "apt.conf")}

    def update(self) -> None:
        """Fetch the package lists. Raises DeviceError, with what apt said; MissingExtraError: no keyring."""
        if not KEYRING.is_file():
            raise MissingExtraError(
                "Debian's keys, by which packages are checked, are not installed",
                where=str(KEYRING),
                next="on Debian and Ubuntu: apt install debian-archive-keyring",
            )
        for name in ("state", "lists/partial", "cache", "none/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._archives / "partial").mkdir(parents=True, exist_ok=True)
        (self._folder / "status").write_text("")
        (self._folder / "sources.list").write_text(sources(debian_mirror()))
        config = self._folder / "apt.conf"
        config.touch(mode=0o600)  # a proxy's address may hold a password
        config.write_text(self._config())
        self._get("update", what="the lists of Debian's packages can't be fetched")

    def _config(self) -> str:
        dumped = host.run([host.command("apt-config"), "dump"], what="apt's configuration can't be read")
        network = [line for line in dumped.splitlines() if _NETWORK.match(line)]
        folder = self._folder
        own = {
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # the user that runs edgekit; apt's own can't enter the cache
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",  # edgekit holds a lock of its own
            "Dir::State": folder / "state",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "Dir::Cache::archives": self._archives,
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::parts": "/dev/null",  # the host's hooks must not run
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
        }
        return "\n".join([*network, *(f'{key} "{value}";' for key, value in own.items())]) + "\n"

    def fetch(self, packages: Sequence[str], *, release: str = "") -> list[Path]:
        """Download packages with all that they depend on.

        Args:
            packages: names, "name/suite" for one out of another suite.
            release: the suite that is preferred for all of them.

        Returns:
            the files, in apt's order; those that were downloaded before are used again.
        """
        wanted = ["-y", *(["-t", release] if release else []), "install", *packages]
        # Asked with an empty folder of archives, so that files which are there already are named as well.
        listed = self._get(
            "-qq",
            "--print-uris",
            "-o",
            f"Dir::Cache::archives={self._folder / 'none'}",
            *wanted,
            what="apt finds no way to fulfil the packages' dependencies",
        )
        files = [self._archives / match["file"] for match in _FETCH.finditer(listed)]
        self._get("-d", *wanted, what="Debian packages can't be downloaded")
        return self._there(files)

    def fetch_kernel(self, name: str) -> Path:
        """Download the package that a kernel's name without a version stands for, alone."""
        listed = host.run(
            [host.command("apt-cache"), "depends", f"{name}/{SUITE}"],
            what=f"{name} isn't in Debian's lists",
            env=self._env,
        )
        found = re.search(r"Depends: (linux-image-\d\S*)", listed)
        if not found:
            raise DeviceError("no kernel is named by this package", where=name, got=host.last_words(listed))
        kernel = found[1]
        listed = self._get(
            "-qq", "--print-uris", "download", kernel, what=f"{kernel} isn't in Debian's lists"
        )
        names = [match["file"] for match in _FETCH.finditer(listed)]
        target = self._archives / names[0] if names else self._archives
        if not target.is_file():
            self._get("download", kernel, what=f"{kernel} can't be downloaded", folder=self._archives)
        return self._there([target])[0]

    def _get(self, *arguments: str, what: str, folder: Path | None = None) -> str:
        argv = [host.command("apt-get"), *arguments]
        if folder is not None:  # `apt-get download` writes into the current folder
            argv = ["sh", "-c", f"cd {shlex.quote(str(folder))} && exec {shlex.join(argv)}"]
        return host.run(
            argv,
            what=what,
            env=self._env,
            failure=DeviceError,
            next=f"check the network, or set {MIRROR_VARIABLE} to the address of a Debian mirror",
        )

    def _there(self, files: list[Path]) -> list[Path]:
        missing = [file.name for file in files if not file.is_file()]
        if missing or not files:
            raise DeviceError(
                "apt-get said that it downloaded packages, and did not",
                where=str(self._archives),
                got=", ".join(missing) or "nothing",
            )
        return files


def unpack(package: Path, target: Path) -> None:
    """Unpack a package's files below ``target``, without documentation; its scripts are not run.

    Without root all files belong to the user. Raises DeviceError: a damaged package, or no space.
    """
    left_out = [f"--exclude=./usr/share/{name}/*" for name in _LEFT_OUT]
    tar = [host.command("tar"), "-x", "-f", "-", "-C", str(target), "--no-same-owner", *left_out]
    with subprocess.Popen(
        [host.command("dpkg-deb"), "--fsys-tarfile", str(package)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as source:
        done = subprocess.run(tar, stdin=source.stdout, capture_output=True, check=False)
        assert source.stderr is not None
        said = source.stderr.read() + done.stderr
    if source.returncode or done.returncode:
        raise DeviceError(
            "this package can't be unpacked",
            where=str(package),
            got=host.last_words(said.decode(errors="replace")),
            next="remove the file, and try again; look whether the disk is full",
        )
