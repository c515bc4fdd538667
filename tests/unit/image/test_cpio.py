"""The archive against a reader written from the format's description, and against busybox's own where that matters."""

from __future__ import annotations

import stat

import pytest

from appliance.image import cpio


def read(data: bytes) -> list[tuple[str, dict[str, int], bytes]]:
    """newc, by buffer-format.rst: thirteen fields of eight hexadecimal digits, name, data, each padded to four."""
    names = "ino mode uid gid nlink mtime size maj min rmaj rmin namesize chksum".split()
    found, at = [], 0
    while True:
        assert data[at : at + 6] == b"070701"
        values = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        head = dict(zip(names, values, strict=True))
        name = data[at + 110 : at + 110 + head["namesize"] - 1].decode()
        assert data[at + 110 + head["namesize"] - 1] == 0
        body = -(-(at + 110 + head["namesize"]) // 4) * 4
        if name == "TRAILER!!!":
            assert body == len(data)
            return found
        found.append((name, head, data[body : body + head["size"]]))
        at = -(-(body + head["size"]) // 4) * 4


def test_what_goes_in_is_what_a_reader_finds() -> None:
    entries = [cpio.file("a", b"12345", 0o555), cpio.character_device("dev/console", 5, 1), cpio.file("b", b"")]
    found = {name: (head, data) for name, head, data in read(cpio.archive(entries))}
    assert found["a"][0]["mode"] == stat.S_IFREG | 0o555
    assert found["a"][1] == b"12345"
    assert found["b"][1] == b""
    console = found["dev/console"][0]
    assert (console["mode"], console["rmaj"], console["rmin"]) == (stat.S_IFCHR | 0o600, 5, 1)


def test_order_of_the_entries_does_not_matter_and_nothing_tells_of_the_builder() -> None:
    entries = [cpio.file("x/y", b"1"), cpio.file("x-y", b"2"), cpio.file("x.y", b"3"), cpio.directory("x/z")]
    assert cpio.archive(entries) == cpio.archive(reversed(entries))
    for _, head, _ in read(cpio.archive(entries)):
        assert head["uid"] == head["gid"] == head["mtime"] == head["maj"] == head["min"] == head["chksum"] == 0
        assert head["nlink"] == 1


def test_parents_are_added_and_come_before_what_is_in_them() -> None:
    names = [name for name, _, _ in read(cpio.archive([cpio.file("a-b", b""), cpio.file("a/b/c", b"")]))]
    assert set(names) == {"a-b", "a", "a/b", "a/b/c"}
    assert names.index("a") < names.index("a/b") < names.index("a/b/c")


def test_every_inode_is_another() -> None:
    numbers = [head["ino"] for _, head, _ in read(cpio.archive([cpio.file(name, b"") for name in "abcdef"]))]
    assert len(set(numbers)) == len(numbers)
    assert 0 not in numbers


@pytest.mark.parametrize("path", ["/etc", "a/../b", "a//b", "./a", "", "a/", "a\0b"])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is no path of an archive"):
        cpio.archive([cpio.file(path, b"")])


def test_two_entries_of_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        cpio.archive([cpio.file("a", b"1"), cpio.file("a", b"2")])


def test_a_file_that_is_also_a_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="not a directory"):
        cpio.archive([cpio.file("a", b"1"), cpio.file("a/b", b"2")])


@pytest.mark.parametrize("length", range(5))
def test_padding_ends_on_a_multiple_of_four(length: int) -> None:
    data = cpio.padded(b"x" * length)
    assert len(data) % 4 == 0
    assert data.rstrip(b"\0") == b"x" * length
    assert len(data) - length < 4
