"""Which of several decrypts a datagram is for: each has its own peers, and a session's index says whose it is.

The key manager chooses the index of every session so that, divided by the number of decrypts, it leaves the number of
the peer's own. The peer sends it back as *receiver index*, bytes 4 to 7 of a transport datagram (section 5.4.6). It
is the sender's word and no more: who lies is not known where the datagram arrives.
"""

from __future__ import annotations

from typing import Final

_RECEIVER: Final = 4
_RECEIVER_END: Final = 8


def by_receiver(untrusted: memoryview, size: int, shards: int) -> list[tuple[int, memoryview | bytes]]:
    """Shares out a group of transport datagrams: what goes to which of ``shards`` decrypts, in the order of arrival.

    The datagrams are of ``size`` bytes but the last, which has at least 8. A group of one session, as nearly all are,
    is passed on as it is.
    """
    count = -(-len(untrusted) // size)
    first = untrusted[_RECEIVER:_RECEIVER_END].tobytes()
    columns = (untrusted[_RECEIVER + i :: size] for i in range(len(first)))
    if all(column == first[i : i + 1] * count for i, column in enumerate(columns)):
        return [(int.from_bytes(first, "little") % shards, untrusted)]
    parts: dict[int, list[memoryview]] = {}
    for start in range(0, len(untrusted), size):
        index = int.from_bytes(untrusted[start + _RECEIVER : start + _RECEIVER_END], "little")
        parts.setdefault(index % shards, []).append(untrusted[start : start + size])
    return [(shard, b"".join(part)) for shard, part in parts.items()]
