"""What is in a role's image: its measured modules run from it alone, and no more than they is in it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.assembly.load import VPN, load
from appliance.image import cpio, store, tree, vouch
from appliance.image.closure import INTERPRETER, ClosureError, measure

ROLES = {domain.role.name: domain.role for domain in load(VPN).domains}


def made(role: str) -> list[tree.Part]:
    sources = tree.sources(measure(ROLES[role]))
    digests = {path: store.digest(path) for path in sources.files()}
    return tree.parts(sources, tree.vouched(digests), digests, "appliance.guest.boot_xen")


@pytest.fixture(scope="module")
def rng() -> list[tree.Part]:
    return made("rng")


def test_two_builds_have_the_same_bytes(rng: list[tree.Part]) -> None:
    assert tree.archive(made("rng")) == tree.archive(rng)


def test_no_program_but_the_interpreter_and_the_script_that_names_it(rng: list[tree.Part]) -> None:
    programs = {part.path for part in rng if part.mode & 0o111 and ".so" not in part.path}
    assert programs == {"init", "usr/bin/python3.11"}
    assert {part.path.rsplit(".", 1)[-1] for part in rng if part.path.startswith("usr/lib/python3.11")} <= {
        "pyc",
        "so",
        "py",  # os.py, which is empty
    }


def test_no_other_component_and_no_other_library(rng: list[tree.Part]) -> None:
    components = {part.path.split("/")[4] for part in rng if "/components/" in part.path and part.path.count("/") > 4}
    assert components == {"rng"}
    assert {part.package.name for part in rng if part.package.kind == "pypi"} == set()
    assert not [part.path for part in rng if "crypto" in part.path or "ssl" in part.path]


def test_keymgr_carries_what_it_declares_and_nothing_of_the_network() -> None:
    names = {module.name for module in measure(ROLES["keymgr"])}
    assert {"cryptography.hazmat.bindings._rust", "nacl._sodium", "components.keymgr.main"} <= names
    assert not names & {"socket", "_socket", "ssl", "_hashlib", "appliance.guest.xennet"}


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_role_is_imported_from_its_image_alone(role: str, tmp_path: Path) -> None:
    """In a root that holds the image and nothing of this machine."""
    for part in made(role):
        file = tmp_path / part.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(part.data)
        file.chmod(part.mode)
    (tmp_path / "usr/lib/python3.11/lib-dynload").mkdir()
    (tmp_path / "init").chmod(0o755)
    (tmp_path / "init").write_text(
        "#!/usr/bin/python3.11 -ISB\n"
        f"import appliance.guest.boot_xen, {ROLES[role].main}, sys, os\n"
        "os.write(1, '\\n'.join(sys.path).encode())\n"
    )
    if os.geteuid():
        pytest.fail("a root of its own needs chroot: run as root, or by make test, which sees to it", pytrace=False)
    done = subprocess.run(["/usr/sbin/chroot", str(tmp_path), "/init"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(path.startswith("/usr/lib/python3") for path in done.stdout.splitlines())


def _later(file: Path) -> Iterator[str]:
    """What a module imports when one of its functions is called."""
    for function in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    yield node.module


@pytest.mark.parametrize("role", sorted(ROLES))
def test_what_a_library_imports_when_it_is_called_is_in_the_image_too(role: str) -> None:
    modules = measure(ROLES[role])
    names = {module.name for module in modules}
    libraries = [module for module in modules if module.kind == "source" and "-packages" in str(module.origin)]
    later = {name for module in libraries if module.origin for name in _later(module.origin)}
    assert later <= names
    if role == "keymgr":
        assert "cryptography.hazmat.backends.openssl.backend" in later


def test_what_the_gate_refuses_has_no_image() -> None:
    with pytest.raises(ClosureError, match="cannot be imported as its domain would"):
        measure(ROLES["keymgr"].__class__(**{**vars(ROLES["keymgr"]), "imports": ()}))


def test_files_are_vouched_for_by_those_who_brought_them() -> None:
    site = next(path for path in map(Path, sys.path) if (path / "nacl").is_dir())
    library = site / "nacl/_sodium.abi3.so"
    found = tree.vouched([INTERPRETER, library, Path(tree.__file__)])
    assert [found[path].kind for path in (INTERPRETER, library, Path(tree.__file__))] == ["deb", "pypi", "septum"]
    assert found[INTERPRETER].name == "python3.11-minimal"


def test_nobody_vouches_for_a_changed_wheel(tmp_path: Path) -> None:
    (tmp_path / "thing-1.dist-info").mkdir()
    (tmp_path / "thing-1.dist-info/RECORD").write_text("thing.py,sha256=AAAA,3\n")
    (tmp_path / "thing.py").write_text("x=1")
    with pytest.raises(vouch.VouchError, match=r"thing\.py is not what the wheel of thing brought"):
        vouch.wheels([tmp_path / "thing.py"], tmp_path)
    with pytest.raises(vouch.VouchError, match="is of no installed wheel"):
        vouch.wheels([tmp_path / "other.py"], tmp_path)


def test_nobody_vouches_for_a_file_of_no_package(tmp_path: Path) -> None:
    (tmp_path / "stray").write_text("")
    with pytest.raises(vouch.VouchError, match="is in no Debian package"):
        vouch.debian([tmp_path / "stray"])


def test_the_archive_has_a_console_and_empty_places_to_mount(rng: list[tree.Part]) -> None:
    archive = tree.archive(rng)
    for name in (b"dev/console\0", b"dev/null\0", b"proc\0"):
        assert name in archive
    assert len(archive) % 4 == 0
    assert archive == cpio.padded(archive)
