"""Debian packages as trees of files. Downloaded once, unpacked in memory, installed nowhere."""

from __future__ import annotations

import fcntl
import io
import os
import re
import subprocess
import tarfile
import tempfile
import threading
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from appliance.image import store

from .cpio import Entry, Tree, file, folder, link
from .places import XEN, step

_LISTED = re.compile(r"^'[^']+' (\S+\.deb) \d+ (\S+)$", re.MULTILINE)
_UPDATE = threading.Lock()  # apt lets one at a time, and has nobody wait
_MERGED = ("bin", "sbin", "lib", "lib64")
"""Top level names that have become links into usr (Debian's UsrMerge); in the packages of Debian 12 they are still
folders."""


class PackageError(Exception):
    """Packages could not be had: the message is what apt said."""


def apt(*arguments: str, cwd: Path | None = None) -> str:
    """Standard output of an apt tool. Errors: PackageError."""
    command = [arguments[0], "-q", "-o", "APT::Sandbox::User=root", *arguments[1:]]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise PackageError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout


def newest_kernel() -> str:
    """The package that Debian's kernel for amd64 is at the moment, as linux-image-6.1.0-56-amd64."""
    found = re.search(
        r"^Depends: (linux-image-\S+)", _or_update("apt-cache", "show", "linux-image-amd64"), re.MULTILINE
    )
    if not found:
        raise PackageError("linux-image-amd64 depends on no kernel: are these Debian's package lists?")
    return found[1]


def _or_update(*command: str) -> str:
    """The output of ``command``, after fetching the package lists if it does not work without."""
    try:
        return apt(*command)
    except PackageError:
        with _UPDATE, step("fetching the package lists"):
            apt("apt-get", "update")
        return apt(*command)


def listed(packages: Sequence[str]) -> dict[str, str]:
    """Of the newest of ``packages`` that apt knows of: name of the file, which has the version in it -> its hash."""
    found = dict(_LISTED.findall(_or_update("apt-get", "--print-uris", "download", *packages)))
    if len(found) < len(packages):
        raise PackageError(f"apt knows {len(found)} of {len(packages)} packages: {' '.join(packages)}")
    return found


def download(packages: Sequence[str]) -> list[Path]:
    """The .deb files of ``packages``, the newest that apt knows of: from build/xen/debs, where they stay, or the
    archive."""
    for attempt in (0, 1):
        try:
            return _into_pool(listed(packages))
        except PackageError:  # the lists are older than the archive
            if attempt:
                raise
            with _UPDATE:
                apt("apt-get", "update")
    raise AssertionError("two attempts return or raise")


def _into_pool(wanted: Mapping[str, str]) -> list[Path]:
    """``wanted``: as ``listed`` gives it. A file is taken from the pool if it has that hash, however long it has lain
    there."""
    pool = XEN / "debs"
    pool.mkdir(parents=True, exist_ok=True)
    with open(XEN / "debs.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [name for name, digest in wanted.items() if not _is(pool / name, digest)]
        if missing:
            with step(f"downloading {len(missing)} Debian packages"), tempfile.TemporaryDirectory(dir=XEN) as scratch:
                apt("apt-get", "download", *(_wanted(name) for name in missing), cwd=Path(scratch))
                for name in missing:
                    (Path(scratch) / name).rename(pool / name)
    return [pool / name for name in sorted(wanted)]


def _is(path: Path, digest: str) -> bool:
    return path.exists() and digest == f"SHA256:{store.digest(path)}"


def _wanted(name: str) -> str:
    """xl_1%3a2.3-4_amd64.deb, as a package and its version: xl=1:2.3-4."""
    package, version, _ = name.split("_")
    return f"{package}={urllib.parse.unquote(version)}"


def unpack(debs: Iterable[Path], leave_out: re.Pattern[str]) -> Tree:
    """The files in ``debs``, but for the paths that match ``leave_out``, as a tree with /usr merged."""
    tree: Tree = {name: link(f"usr/{name}") for name in _MERGED}
    for deb in sorted(debs):
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as members:
            for member in members:
                path = _merged(os.path.normpath(member.name))
                if path != "." and path not in _MERGED and not leave_out.search(path):
                    tree[path] = _entry(members, member)
    return tree


def _merged(path: str) -> str:
    return f"usr/{path}" if path.split("/", maxsplit=1)[0] in _MERGED else path


def _entry(members: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    if member.isdir():
        return folder(member.mode & 0o7777)
    if member.issym():
        return link(member.linkname)
    if member.isreg() or member.islnk():
        data = members.extractfile(member)
        assert data is not None
        return file(data.read(), member.mode & 0o777)
    raise PackageError(f"{member.name}: neither file nor folder nor link")
