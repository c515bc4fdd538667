"""The quick look at a group: are all its packets of the flow of the first? It then needs one verdict, not forty-four.

A header field of every packet at once is a column: the blob seen as an array of words, from the field on, one packet's
length apart. A column is uniform if it is its first word over and over. This needs packets of a multiple of 4 bytes and
addresses where they always are; anything else says None here, and is judged packet by packet.
"""

from __future__ import annotations

from typing import Final

# Columns that must be uniform, as offsets of 32-bit words and of 16-bit words. Left out are what differs within a flow:
# IPv4's identification and header checksum (bytes 4, 10), and what follows the ports.
_WORDS4: Final = (0, 3, 4, 5)  # version, header length, service, total length; addresses; ports
_HALVES4: Final = (3, 4)  # fragment flags and offset; TTL and protocol
_WORDS6: Final = (0, 1, *range(2, 11))  # version, flow label; length, next header; addresses; ports
_TCP4: Final = 16  # the 16-bit word of data offset and flags
_TCP6: Final = 26


def flags_of_one_flow(blob: memoryview, size: int, is_tcp: bool) -> set[int] | None:
    """The TCP flags that occur (0 for other protocols) if every packet of ``blob`` has the addresses, ports, protocol,
    lengths and fragment field of the first, whose headers are known to be plain, TCP's or UDP's; None if that cannot be
    said quickly.

    ``blob`` holds whole packets of ``size`` bytes, at least two of them.
    """
    if size & 3:
        return None
    words, halves = blob.cast("I"), blob.cast("H")
    is_4 = blob[0] >> 4 == 4
    count = len(blob) // size
    step = size // 4
    for at in _WORDS4 if is_4 else _WORDS6:
        column = words[at::step].tobytes()
        if column != column[:4] * count:
            return None
    step = size // 2
    if is_4:
        for at in _HALVES4:
            column = halves[at::step].tobytes()
            if column != column[:2] * count:
                return None
    if not is_tcp:
        return {0}
    column = halves[_TCP4 if is_4 else _TCP6 :: step].tobytes()
    if column[::2] != column[:1] * count:  # the data offset
        return None
    return set(column[1::2])
