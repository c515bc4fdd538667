"""A window shows what it is told to or zeros, and never nothing."""

from __future__ import annotations

import os

import pytest

from appliance.xen.window import PAGE, Window


def pages(content: bytes) -> int:
    fd = os.memfd_create("pages", os.MFD_CLOEXEC)
    os.write(fd, content)
    return fd


def test_it_shows_pages_and_zeros_in_turn_at_the_same_place() -> None:
    window = Window(2 * PAGE)
    memory = window.memory
    words = memory[:8].cast("I")
    assert not any(memory)
    for byte in (b"\x11", b"\x22"):
        fd = pages(byte * 2 * PAGE)
        window.show(fd, 0)
        assert memory[0] == memory[2 * PAGE - 1] == byte[0]
        words[0] = 0xDEADBEEF
        memory[2 * PAGE - 1] = 0x33
        assert os.pread(fd, 4, 0) == b"\xef\xbe\xad\xde"
        assert os.pread(fd, 1, 2 * PAGE - 1) == b"\x33"
        window.blank()
        assert not any(memory)
        assert words[0] == 0
        memory[0] = 1  # our own now
        assert os.pread(fd, 1, 0) == b"\xef"
        os.close(fd)


def test_what_cannot_be_shown_leaves_zeros() -> None:
    window = Window(PAGE)
    fd = pages(b"\x11" * PAGE)
    window.show(fd, 0)
    with pytest.raises(OSError, match="mmap"):
        window.show(os.open("/proc/self/status", os.O_RDONLY), 0)
    assert not any(window.memory)
    window.show(fd, 0, is_writable=False)
    assert window.memory[0] == 0x11


@pytest.mark.parametrize("size", [0, -PAGE, 1, PAGE + 1])
def test_whole_pages(size: int) -> None:
    with pytest.raises(ValueError, match="whole pages"):
        Window(size)
