"""Numbers of the ioctls of Linux' Xen devices: ``_IOC(_IOC_NONE, letter, number, size)`` of <asm-generic/ioctl.h>."""

from __future__ import annotations


def request(letter: str, number: int, size: int) -> int:
    """The request code. ``size`` is that of the C struct, its padding and a flexible array's one element included."""
    return size << 16 | ord(letter) << 8 | number
