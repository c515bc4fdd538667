"""The quick look at a group: how many of its packets are of the flow of one? They need one verdict, not forty-four.

A header field of every packet at once is a column: the blob seen as an array of words, from the field on, one packet's
length apart. This needs packets of a multiple of 4 bytes and addresses where they always are; anything else is a run of
one here, and is judged packet by packet.
"""

from __future__ import annotations

from typing import Final

from components.filter.headers import ACK, FIN, RST, SYN

# Columns that must be uniform, as offsets of 32-bit words. Left out are what differs within a flow: IPv4's
# identification and header checksum (bytes 4, 10), and what follows the ports.
_WORDS4: Final = (0, 3, 4, 5)  # version, header length, service, total length; addresses; ports
_WORDS6: Final = (0, 1, *range(2, 11))  # version, flow label; length, next header; addresses; ports
_BETWEEN4: Final = 6  # of bytes: the word of fragment flags, offset, TTL and protocol, across two words
_TCP4: Final = 16  # the 16-bit word of data offset and flags
_TCP6: Final = 26
_COMPARED4: Final = ((0, 4), (6, 10), (12, 24))  # the same, as bytes
_COMPARED6: Final = ((0, 8), (8, 44))
_SHORTEST: Final = 24
_FLAGS4: Final = 33  # the byte of TCP's flags
_FLAGS6: Final = 53
_MOST: Final = (
    64  # packets: what a group holds if it was made as groups are, and the price of a look at one that was not
)
# Flags that change a flow's state, or that no segment in the midst of a connection has
_TURNS: Final = bytes(flags & (SYN | FIN | RST | ACK) != ACK for flags in range(256))


def run(blob: memoryview, start: int, size: int, is_tcp: bool) -> int:
    """How many packets of ``size`` bytes from ``start`` on have the addresses, ports, protocol, lengths and fragment
    field of the first one, whose headers are known to be plain, TCP's or UDP's; and, after the first, none of the TCP
    flags that change a flow's state. At least one; not all if that cannot be said quickly.
    """
    count = (len(blob) - start) // size
    if size < _SHORTEST or size & 3 or start & 3 or count < 2:
        return 1
    is_4 = blob[start] >> 4 == 4
    if size <= (_FLAGS4 if is_4 else _FLAGS6) if is_tcp else not is_4 and size < _COMPARED6[-1][-1]:
        return 1
    count = min(count, _MOST)
    # The commonest end of a run: flows that take turns. All that is looked at below is looked at here
    for low, high in _COMPARED4 if is_4 else _COMPARED6:
        if blob[start + low : start + high] != blob[start + size + low : start + size + high]:
            return 1
    blob = blob[start : start + count * size]
    words = blob.cast("I")
    step = size // 4
    columns = [words[at::step].tobytes() for at in (_WORDS4 if is_4 else _WORDS6)]
    if is_4:
        columns.append(blob[_BETWEEN4 : len(blob) - 8 + _BETWEEN4].cast("I")[::step].tobytes())
    for column in columns:
        if column != column[:4] * count:
            count = min(count, _equal(column, 4))
    if is_tcp:
        column = blob.cast("H")[_TCP4 if is_4 else _TCP6 :: size // 2].tobytes()
        offsets = column[::2]
        if offsets != offsets[:1] * len(offsets):
            count = min(count, _equal(offsets, 1))
        turn = column[3::2].translate(_TURNS).find(1)
        if turn >= 0:
            count = min(count, 1 + turn)
    return count


def _equal(column: bytes, width: int) -> int:
    """How many words of ``width`` bytes are the first one over and over, up to the first that is not."""
    pattern = column[:width] * (len(column) // width)
    differs = int.from_bytes(column, "big") ^ int.from_bytes(pattern, "big")
    return (8 * len(column) - differs.bit_length()) // (8 * width)
