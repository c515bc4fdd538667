"""What a new peer needs to know: a file for wg-quick, also as a QR code. It is made here; the box never sees it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console


class Client(NamedTuple):
    """A peer's own side. Keys in base64; ``addresses`` are its own within the tunnel, ``allowed_ips`` what is behind
    the box; ``preshared_key``, ``dns`` and ``endpoint`` may be empty, ``mtu`` and ``keepalive`` 0.
    """

    name: str
    private_key: str
    addresses: Sequence[str]
    box_key: str
    endpoint: str
    allowed_ips: Sequence[str]
    preshared_key: str = ""
    dns: str = ""
    mtu: int = 0
    keepalive: int = 0

    def text(self) -> str:
        """As wg-quick(8) reads it."""
        rows = [
            ("", f"# {self.name}\n[Interface]"),
            ("PrivateKey", self.private_key),
            ("Address", ", ".join(self.addresses)),
            ("DNS", self.dns),
            ("MTU", str(self.mtu or "")),
            ("", "\n[Peer]"),
            ("PublicKey", self.box_key),
            ("PresharedKey", self.preshared_key),
            ("AllowedIPs", ", ".join(self.allowed_ips)),
            ("Endpoint", self.endpoint),
            ("PersistentKeepalive", str(self.keepalive or "")),
        ]
        return "".join(f"{key} = {value}\n" if key else f"{value}\n" for key, value in rows if value)


def show_qr(text: str, console: Console) -> bool:
    """Draws ``text`` for the camera of a telephone; False, and nothing is drawn, if the terminal is too narrow.

    Two rows of the code a line, in half blocks; dark on light whatever the terminal's colours are.
    """
    rows = qr(text)
    if console.width < len(rows[0]) or not console.is_terminal:
        return False
    for row in rows:
        console.print(row, style="black on bright_white", soft_wrap=True, markup=False)
    return True


def qr(text: str) -> list[str]:
    """The code in half blocks, with the quiet zone of four modules around it that ISO/IEC 18004 asks for."""
    import segno

    matrix = [list(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=4)]
    if len(matrix) % 2:
        matrix.append([0] * len(matrix[0]))
    blocks = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}
    return [
        "".join(blocks[bool(upper), bool(lower)] for upper, lower in zip(matrix[i], matrix[i + 1], strict=True))
        for i in range(0, len(matrix), 2)
    ]


def svg(text: str) -> str:
    """The code as a picture."""
    import segno

    out = io.BytesIO()
    segno.make(text, error="l", micro=False).save(out, kind="svg", scale=4, border=4)
    return out.getvalue().decode()
