"""Who vouches for a file: the Debian package or the wheel that brought it, by the checksum it came with.

A file that its package does not know, or knows with other contents, goes into no image.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

_DPKG: Final = Path("/var/lib/dpkg/info")


class VouchError(Exception):
    """A file that nobody vouches for; the text says what to do."""


class Package(NamedTuple):
    """Where files come from: a Debian package, a wheel, or this distribution."""

    kind: Literal["deb", "pypi", "septum"]
    name: str
    version: str

    @property
    def purl(self) -> str:
        """The package URL (purl specification)."""
        return (
            f"pkg:deb/debian/{self.name}@{self.version}"
            if self.kind == "deb"
            else f"pkg:pypi/{self.name}@{self.version}"
        )


def _dpkg(*arguments: str) -> str:
    command = ["dpkg-query", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout


def _names(path: Path) -> Iterator[str]:
    """The names by which dpkg may know a file: /lib and /usr/lib are one folder, and packages say either."""
    real = str(path.resolve())
    yield real
    if real.startswith("/usr/"):
        yield real.removeprefix("/usr")


def debian(files: Iterable[Path]) -> dict[Path, Package]:
    """The Debian package of each of ``files``, whose contents are what the package brought. Errors: VouchError."""
    wanted = {name: path for path in files for name in _names(path)}
    owners: dict[Path, tuple[str, str]] = {}
    for line in _dpkg("-S", *wanted).splitlines():
        package, _, name = line.partition(": ")
        if name in wanted and "," not in package:
            owners[wanted[name]] = (package, name)
    for path in wanted.values():
        if path not in owners:
            raise VouchError(f"{path} is in no Debian package: Septum's images are made on Debian, of its python3")
    versions = _versions({package for package, _ in owners.values()})
    sums = {package: _sums(package) for package in versions}
    for path, (package, name) in owners.items():
        # A checksum against decay and accident; apt has checked the signature that stands over it
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if sums[package].get(name) != found:
            raise VouchError(
                f"{path} is not what {package} {versions[package]} brought: "
                f"apt-get install --reinstall {package.split(':')[0]}"
            )
    return {
        path: Package("deb", package.split(":")[0], versions[package]) for path, (package, _) in sorted(owners.items())
    }


def _versions(packages: Iterable[str]) -> dict[str, str]:
    return {package: _dpkg("-W", "-f", "${Version}", package) for package in sorted(packages)}


def _sums(package: str) -> dict[str, str]:
    candidates = (_DPKG / f"{package}.md5sums", _DPKG / f"{package.partition(':')[0]}.md5sums")
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        return {}
    return {f"/{name}": digest for digest, name in (line.split("  ", 1) for line in file.read_text().splitlines())}


def wheels(files: Iterable[Path], site: Path) -> dict[Path, Package]:
    """The wheel of each of ``files``, installed in ``site`` with these contents. Errors: VouchError."""
    wanted = set(files)
    found: dict[Path, Package] = {}
    for record in sorted(site.glob("*.dist-info/RECORD")):
        name, _, version = record.parent.name.removesuffix(".dist-info").rpartition("-")
        with open(record, newline="") as rows:
            for relative, digest, *_ in csv.reader(rows):
                path = site / relative
                if path in wanted:
                    _check(path, digest, name)
                    found[path] = Package("pypi", name.lower().replace("_", "-"), version)
    for path in wanted - found.keys():
        raise VouchError(f"{path} is of no installed wheel: rm -r .venv and make .venv/.runtime")
    return found


def _check(path: Path, digest: str, name: str) -> None:
    algorithm, _, expected = digest.partition("=")
    made = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
    if algorithm != "sha256" or made != expected:
        raise VouchError(f"{path} is not what the wheel of {name} brought: rm -r .venv and make .venv/.runtime")
