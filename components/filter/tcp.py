"""TCP as a bystander follows it: which segments can belong to a connection, and how far it has come.

The windows are those of Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2000), as Linux keeps them
(nf_conntrack_proto_tcp): what a side may send is bounded by what the other has said it will take, and what it may
acknowledge by what the other has sent. Linux is liberal with what comes late, and so is this: old data and old
acknowledgments pass, and change nothing. Whoever has the sequence numbers of a connection can still spoil it.

Followed is a connection whose SYN was seen. One that was picked up in its middle has windows whose scale nobody knows:
its sequence numbers are not followed at all.

Sequence numbers are modulo 2**32 (RFC 9293 section 3.4), window scaling is RFC 7323's, resets are RFC 5961's.
"""

from __future__ import annotations

from enum import IntEnum, auto
from struct import Struct
from typing import Final, NamedTuple

from components.filter.flows import Flow, State
from components.filter.headers import ACK, FIN, RST, SYN
from components.filter.model import Side

_URG: Final = 0x20
_UNTOLD: Final = 0x08 | 0x40 | 0x80  # PSH, and ECN's two (RFC 3168), which go with any others
_SENSIBLE: Final = frozenset(
    (SYN, SYN | _URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | _URG, ACK, ACK | _URG)
)  # all that an honest stack sends (nf_conntrack's tcp_valid_flags)
_M: Final = 0xFFFFFFFF
_HALF: Final = 1 << 31
_LATE_ACK: Final = 66_000  # of bytes: so old may an acknowledgment be, however small the window (MAXACKWINCONST)
_LARGEST_SCALE: Final = 14  # RFC 7323 section 2.3
_LARGEST: Final = 1 << 30  # of windows
_WINDOW_SCALE: Final = 3  # the option
_HEADER: Final = Struct("!4xIIBBH")  # sequence, acknowledgment, data offset, flags, window
_TRAIN: Final = Struct("!IIxxH")  # the same without what is known to be the same: from the sequence number on


class Segment(NamedTuple):
    """What there is to follow of a segment."""

    flags: int
    sequence: int
    acknowledged: int
    window: int  # not scaled
    end: int  # the sequence number after it
    scale: int  # -1: no such option


class End:
    """What was seen of one end of a connection."""

    __slots__ = ("acked", "end", "limit", "scale", "window")

    def __init__(self, end: int, window: int, scale: int) -> None:
        self.end = end  # the sequence number after the last that it sent
        self.limit = end  # the sequence number after the last that it may send
        self.window = max(window, 1)  # the largest that it has offered
        self.scale = scale  # of its windows; -1: it has not said so
        self.acked = -1  # the last that it has acknowledged


class Fit(IntEnum):
    """Whether a segment can be of a connection."""

    NO = 0
    LATE = auto()  # it passes, and changes nothing
    YES = auto()


_NO, _LATE, _YES = Fit  # a look at a member of an enumeration costs as much as ten others do


class Turn(NamedTuple):
    """What a segment makes of its flow."""

    fit: Fit
    state: State
    fins: int
    why: str = ""  # it does not fit


def segment(packet: bytes, start: int) -> Segment:
    """The segment whose header begins at ``start`` of a whole packet, and is all there."""
    sequence, acknowledged, offset, flags, window = _HEADER.unpack_from(packet, start)
    data = start + (offset >> 4) * 4
    length = len(packet) - data + bool(flags & SYN) + bool(flags & FIN)
    scale = _scale(packet[start + 20 : data]) if flags & SYN else -1
    return Segment(flags, sequence, acknowledged, window, (sequence + length) & _M, scale)


def _scale(options: bytes) -> int:
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            return -1
        if options[at] == _WINDOW_SCALE and length == 3:
            return min(options[at + 2], _LARGEST_SCALE)
        at += length
    return -1


def is_sensible(flags: int) -> bool:
    """Whether an honest stack sends these flags together."""
    return flags & ~_UNTOLD & 0xFF in _SENSIBLE


def may_begin(flags: int, picks_up: bool) -> bool:
    """Whether a segment of no known connection may be the first of one: a SYN, or one of its midst if ``picks_up``."""
    return flags & (SYN | ACK | FIN | RST) in ((SYN, ACK) if picks_up else (SYN,))


def ends(flow: Flow, side: Side) -> tuple[End | None, End | None]:
    """The sender's and the receiver's end of what comes from ``side``."""
    return (flow.near_end, flow.far_end) if side is Side.RED else (flow.far_end, flow.near_end)


def is_ended(flow: Flow) -> bool:
    """Whether a SYN would open a connection anew."""
    return flow.state in (State.CLOSING, State.RESET)


def turn(flow: Flow, side: Side, seen: Segment) -> Turn:
    """What ``seen``, from ``side``, would make of the flow. Changes nothing."""
    sender, receiver = ends(flow, side)
    flags, state, fins = seen.flags, flow.state, flow.fins
    is_opener = side is flow.opener
    if flags & SYN and flags & ACK and is_opener:
        return Turn(Fit.NO, state, fins, "handshake")
    if sender is None and receiver is None:  # not followed
        return Turn(Fit.YES, *_next(flow, side, flags, flags & RST != 0))
    if flags & SYN:
        return _syn(flow, sender, receiver, is_opener, seen)
    if receiver is None or sender is None:
        # The other end has not spoken: a second packet of the opener, or a segment that answers a SYN without a SYN
        if is_opener:
            if not flags & RST:
                hasty = state is State.OPENING  # nobody has answered it
                return Turn(Fit.NO, state, fins, "handshake") if hasty else Turn(Fit.LATE, state, fins)
            if sender is not None and seen.sequence == sender.end:
                return Turn(Fit.LATE, State.RESET, fins)
            return Turn(Fit.NO, state, fins, "reset")
        if flags & RST:
            refuses = flags & ACK and receiver is not None and _answers(receiver, seen)
            return Turn(Fit.LATE, State.RESET, fins) if refuses else Turn(Fit.NO, state, fins, "reset")
        if flags & FIN:
            return Turn(Fit.NO, state, fins, "handshake")
        return Turn(Fit.LATE, state, fins)  # of an older connection (RFC 9293 section 3.5.1): it will be reset
    if flags & RST and flags & ACK and not is_opener and seen.acknowledged == flow.syn:
        # RFC 9293 section 3.10.7.1: so is answered the SYN of an opener that forgot what its peer has forgotten too
        return Turn(Fit.LATE, State.RESET, fins)
    fit = _fits(sender, receiver, seen)
    if fit is Fit.NO:
        return Turn(fit, state, fins, "window")
    if flags & RST:
        # RFC 5961 section 3.2: only the very next sequence number resets; another may be answered with a challenge
        expected = receiver.acked
        if expected >= 0 and seen.sequence != expected and state is State.ESTABLISHED:
            late = (seen.sequence - expected) & _M >= _HALF
            return Turn(Fit.NO, state, fins, "reset") if late else Turn(Fit.LATE, state, fins)
        return Turn(Fit.LATE, State.RESET, fins)
    if fit is Fit.LATE:
        return Turn(fit, state, fins)
    return Turn(fit, *_next(flow, side, flags, False))


def _next(flow: Flow, side: Side, flags: int, resets: bool) -> tuple[State, int]:
    """The state after a segment that fits, and who has sent FIN."""
    state, fins = flow.state, flow.fins
    if state is State.OPENING and side is not flow.opener:
        state = State.ANSWERING if flags & SYN else State.ESTABLISHED
    elif state is State.ANSWERING and side is flow.opener:
        state = State.ESTABLISHED
    if resets:
        return State.RESET, fins
    if state is State.RESET:
        # Where sequence numbers are not followed, anybody's reset was believed. Only the red side can say that it was
        # none: it answered a forged one with an ACK
        return (State.ESTABLISHED if side is Side.RED and flow.near_end is None else State.RESET), fins
    if flags & FIN:
        fins |= side
        if fins == Side.RED | flow.far:
            state = State.CLOSING
    return state, fins


def _syn(flow: Flow, sender: End | None, receiver: End | None, is_opener: bool, seen: Segment) -> Turn:
    state, fins = flow.state, flow.fins
    if seen.flags & ACK:
        if is_opener:
            return Turn(Fit.NO, state, fins, "handshake")
        if flow.syn >= 0 and seen.acknowledged == flow.syn:  # both ends agree to begin anew
            return Turn(Fit.YES, State.ANSWERING, 0)
        if state is State.OPENING and receiver is not None and _answers(receiver, seen):
            return Turn(Fit.YES, State.ANSWERING, fins)
        if sender is None:  # it answers an older SYN: whoever sent that will reset it (RFC 9293 section 3.10.7.3)
            again = receiver is not None and (receiver.end - seen.acknowledged) & _M < _HALF
        else:  # one more of the first
            again = (sender.end - seen.end) & _M < _HALF
        return Turn(Fit.LATE, state, fins) if again else Turn(Fit.NO, state, fins, "handshake")
    if is_opener and state is State.OPENING:
        return Turn(Fit.YES, state, 0)
    return Turn(Fit.LATE, state, fins)


def _answers(receiver: End, seen: Segment) -> bool:
    """Whether a segment acknowledges a SYN, and maybe some of the data in it (RFC 7413)."""
    return (seen.acknowledged - receiver.limit) & _M <= (receiver.end - receiver.limit) & _M


def expected(flow: Flow, side: Side) -> tuple[int, int] | None:
    """Sequence and acknowledgment number of what comes next from ``side``; None if they are not followed."""
    sender, receiver = ends(flow, side)
    if sender is None and receiver is None:
        return None
    return sender.end if sender is not None else 1, receiver.end if receiver is not None else 0


def opened(flow: Flow, seen: Segment) -> None:
    """The flow was opened by that segment."""
    if seen.flags & (SYN | ACK) == SYN:
        _set(flow, flow.opener, _first(seen))


def _first(seen: Segment) -> End:
    """The end that sent a SYN: until that is answered, its limit is the sequence number after the SYN itself."""
    made = End(seen.end, seen.window, seen.scale)
    made.limit = (seen.sequence + 1) & _M
    return made


def is_on_its_way(flow: Flow, side: Side, sequence: int) -> bool:
    """Whether a segment from ``side`` that begins with ``sequence`` can have been sent, and not been acknowledged yet:
    only of such a one an ICMP error can tell (RFC 5927 section 4.1). True where numbers are not followed.
    """
    sender, receiver = ends(flow, side)
    if sender is None:
        return receiver is None
    oldest = receiver.acked if receiver is not None and receiver.acked >= 0 else sender.end - _LATE_ACK
    # An acknowledgment alone begins where the next byte will be
    return (sequence - oldest) & _M <= (sender.end - oldest) & _M


def lose(flow: Flow) -> None:
    """From here on its sequence numbers are not followed."""
    flow.near_end = flow.far_end = None


def follow(flow: Flow, side: Side, seen: Segment, made: Turn) -> None:
    """Takes note of a segment that fits and was let through."""
    flow.fins = made.fins
    sender, receiver = ends(flow, side)
    if sender is None and receiver is None:
        return
    if seen.flags & SYN:
        if made.fit is Fit.YES:
            _begin(flow, side, seen)
        elif side is flow.opener and not seen.flags & ACK and flow.state in (State.ANSWERING, State.ESTABLISHED):
            flow.syn = seen.end
        return
    if made.fit is Fit.YES and sender is not None and receiver is not None:
        _update(sender, receiver, seen.sequence, seen.end, seen.acknowledged, seen.window, bool(seen.flags & ACK))


def _begin(flow: Flow, side: Side, seen: Segment) -> None:
    """A SYN, or the SYN that answers one."""
    mine = _first(seen)
    _set(flow, side, mine)
    if not seen.flags & ACK:
        return
    other = ends(flow, side)[1]
    if other is None or flow.syn >= 0:
        other = End(seen.acknowledged, 1, seen.scale if other is None else other.scale)
        _set(flow, flow.opener, other)
        flow.syn = -1
    if mine.scale < 0 or other.scale < 0:  # RFC 7323 section 2.2: both or none
        mine.scale = other.scale = 0
    mine.acked = seen.acknowledged
    mine.limit = (seen.end + other.window) & _M
    other.limit = (seen.acknowledged + mine.window) & _M


def _set(flow: Flow, side: Side, end: End) -> None:
    if side is Side.RED:
        flow.near_end = end
    else:
        flow.far_end = end


def _fits(sender: End, receiver: End, seen: Segment) -> Fit:
    flags = seen.flags
    acknowledged = seen.acknowledged
    if not flags & ACK or (flags & RST and not acknowledged):  # some stacks set the bit and no number
        acknowledged = receiver.end
    return _fit(sender, receiver, seen.sequence, seen.end, acknowledged)


def _fit(sender: End, receiver: End, sequence: int, end: int, acknowledged: int) -> Fit:
    """Rooij's four bounds, all modulo 2**32."""
    if (receiver.end - acknowledged) & _M >= _HALF:  # what was never sent
        return _NO
    # Some send more than they may, which the receiver then acknowledges: as far as it has ever offered
    if (sender.limit - sequence) & _M >= _HALF and (end - sender.limit) & _M > receiver.window:
        return _NO
    if (end - sender.end + receiver.window) & _M >= _HALF:
        return _LATE
    if (receiver.end - acknowledged) & _M > max(sender.window, _LATE_ACK):
        return _LATE
    return _YES


def _update(sender: End, receiver: End, sequence: int, end: int, acknowledged: int, window: int, has_ack: bool) -> None:
    """What a segment that fits says of both ends."""
    window <<= sender.scale
    sender.window = max(sender.window, window)
    if 0 < (end - sender.end) & _M < _HALF:
        sender.end = end
    beyond = (end - sender.limit) & _M
    if 0 < beyond < _HALF:
        receiver.window = min(receiver.window + beyond, _LARGEST)
        sender.limit = end
    if has_ack:
        if sender.acked < 0 or 0 < (acknowledged - sender.acked) & _M < _HALF:
            sender.acked = acknowledged
        limit = (acknowledged + max(window, 1)) & _M
        if 0 < (limit - receiver.limit) & _M < _HALF:
            receiver.limit = limit


def follow_train(sender: End, receiver: End, blob: memoryview, first: int, last: int, data: int) -> bool:
    """The same for a train of segments with the ACK flag, none of SYN, FIN and RST, and ``data`` bytes each: the first
    and the last one's sequence numbers are at ``first`` and ``last`` of ``blob``, and those between are taken to lie
    between. False if it does not plainly fit, as where numbers come round to 0: nothing has changed then.
    """
    sequence, acknowledged, window = _TRAIN.unpack_from(blob, first)
    if sender.end - receiver.window > sequence + data or acknowledged < sender.acked:
        return False
    behind = receiver.end - acknowledged
    if behind > _LATE_ACK and behind > sender.window:
        return False
    if first != last:
        before, acknowledged_before = sequence, acknowledged
        sequence, acknowledged, window = _TRAIN.unpack_from(blob, last)
        if sequence < before or acknowledged < acknowledged_before:
            return False
    end = sequence + data
    window <<= sender.scale
    limit = acknowledged + window
    if end > sender.limit or acknowledged > receiver.end or limit > _M:
        return False
    if end > sender.end:  # noqa: PLR1730 - a call costs more
        sender.end = end
    if window > sender.window:  # noqa: PLR1730
        sender.window = window
    if limit > receiver.limit:  # noqa: PLR1730
        receiver.limit = limit
    sender.acked = acknowledged
    return True
