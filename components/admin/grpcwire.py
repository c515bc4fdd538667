"""gRPC over HTTP/2, the server's end of one connection: bytes in, events out. No I/O, no clock.

Sources: gRPC over HTTP2 (grpc/grpc, doc/PROTOCOL-HTTP2.md), RFC 9113. HTTP/2 itself is h2, which parses in Python: what
a stranger sends meets no parser that could corrupt memory. What is bounded here: the header list, the length of a
message, the calls that are open, and, by HTTP/2's own windows, what waits to be taken. What waits to be sent is for
``pending`` to say and for the caller to bound: a peer that does not read is not read from either.
"""

from __future__ import annotations

import base64
import re
import struct
from collections import deque
from contextlib import suppress
from typing import Final, NamedTuple

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from components.admin.status import Code, RpcError

MOST_CALLS: Final = 100  # open at once, of one connection
LONGEST_MESSAGE: Final = 72 << 10  # bytes, of a request: a piece of a section and what is around it
LARGEST_HEADERS: Final = 16 << 10
LONGEST_FRAME: Final = 16_384  # as all peers must take, and we ask for no more
_PREFACE: Final = 24
_FRAME_HEADER: Final = 9
_DATA: Final = 0
_HEADERS: Final = 1
_CONTINUATION: Final = 9
STREAM_WINDOW: Final = 128 << 10  # a whole message of the longest kind fits
UNKNOWN_WINDOW: Final = STREAM_WINDOW  # of the connection, until it is known who that is
CONNECTION_WINDOW: Final = 512 << 10
_PREFIX: Final = struct.Struct(">BI")
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_CONTENT_TYPES: Final = frozenset({"application/grpc", "application/grpc+proto"})
_DEFAULT_WINDOW: Final = 65_535

_Headers = list[tuple[str, str]]


class Opened(NamedTuple):
    """A call begins. ``timeout``: seconds that the caller will wait; None if it does not say."""

    stream: int
    path: str
    timeout: float | None


class Message(NamedTuple):
    """One whole message; ``taken(stream)`` is due once it was used, or the caller may send no more of them."""

    stream: int
    data: bytes


class HalfClosed(NamedTuple):
    """The caller sends no more messages."""

    stream: int


class Ended(NamedTuple):
    """The call is over: the caller has given it up."""

    stream: int


Event = Opened | Message | HalfClosed | Ended


class Broken(Exception):
    """The peer does not speak the protocol; what ``output`` holds says so to it, and then the connection ends."""


class _Lengths:
    """The lengths of frames, looked at before h2 sees them: it waits for the whole of a frame, however long, and only
    then finds that it is too long (RFC 9113 section 4.2). And it keeps 64 frames of one list of headers before it reads
    any of them (section 6.10).
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._skip = _PREFACE  # bytes before the next frame's header
        self._block = 0  # bytes of the list of headers that is coming in

    def check(self, untrusted: bytes) -> int:
        """How many frames begin here, but for those that carry data. Errors: h2's ProtocolError."""
        at = count = 0
        while at < len(untrusted):
            skipped = min(self._skip, len(untrusted) - at)
            self._skip -= skipped
            at += skipped
            if self._skip:
                return count
            missing = _FRAME_HEADER - len(self._header)
            self._header += untrusted[at : at + missing]
            at += missing
            if len(self._header) < _FRAME_HEADER:
                return count
            self._skip = int.from_bytes(self._header[:3], "big")
            if self._skip > LONGEST_FRAME:
                raise h2.exceptions.FrameTooLargeError(f"a frame of {self._skip} bytes")
            kind = self._header[3]
            if kind in (_HEADERS, _CONTINUATION):
                self._block = self._skip + (self._block if kind == _CONTINUATION else 0)
                if self._block > LARGEST_HEADERS:
                    raise h2.exceptions.DenialOfServiceError(f"{self._block} bytes of headers")
            count += kind != _DATA or self._skip == 0
            self._header.clear()
        return count


class _Stream:
    """One call: what of its request is not yet a whole message, and what of its reply is not yet sent."""

    def __init__(self) -> None:
        self.partial = bytearray()
        self.untaken: deque[int] = deque()  # bytes of windows that each message not yet taken holds
        self.held = 0  # of what follows it
        self.out: deque[memoryview] = deque()
        self.trailers: _Headers | None = None
        self.has_begun = False
        self.is_heard = True  # the caller may still send
        self.waits = 0  # bytes in `out`
        self.http_status = ""  # with which it is refused, as no call of gRPC's


class Connection:
    """The server's end. ``received`` takes what came, ``output`` gives what goes; ``reply``, ``finish`` in between."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: MOST_CALLS,
                codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                codes.MAX_HEADER_LIST_SIZE: LARGEST_HEADERS,
                codes.ENABLE_PUSH: 0,
            },
        )
        self._h2.decoder.max_header_list_size = LARGEST_HEADERS
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(UNKNOWN_WINDOW - _DEFAULT_WINDOW)
        self._lengths = _Lengths()
        self._streams: dict[int, _Stream] = {}
        self.pending = 0
        """Bytes of replies that wait for the peer's windows."""
        self.is_ending = False
        self.frames = 0
        """In what was received last."""

    def widen(self) -> None:
        """The peer is somebody: it may send as much at once as administrators may. To be called once."""
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - UNKNOWN_WINDOW)

    @property
    def calls(self) -> int:
        """Open ones."""
        return len(self._streams)

    def waits(self, stream: int) -> int:
        """Bytes of the reply of that call that are not on their way yet."""
        found = self._streams.get(stream)
        return found.waits if found else 0

    # in -----------------------------------------------------------------------------------------------------------

    def received(self, untrusted: bytes, most_frames: int = 1 << 20) -> list[Event]:
        """What these bytes say; ``frames`` of them carried no data, ``most_frames`` at most. They are counted before
        they are read, which takes a thousand times as long.

        Errors: Broken, after which only ``output`` may be called.
        """
        try:
            self.frames = self._lengths.check(untrusted)
            if self.frames > most_frames:
                self.go_away(is_flood=True)
                raise Broken("a flood of frames")
            events = self._h2.receive_data(untrusted)
        except (h2.exceptions.ProtocolError, UnicodeDecodeError) as error:
            self.is_ending = True
            raise Broken(type(error).__name__) from None
        found: list[Event] = []
        for event in events:
            match event:
                case h2.events.RequestReceived():
                    self._opened(event, found)
                case h2.events.DataReceived():
                    self._data(event, found)
                case h2.events.StreamEnded():
                    if (stream := self._streams.get(event.stream_id or 0)) is not None and stream.is_heard:
                        self._half_closed(event.stream_id or 0, stream, found)
                case h2.events.StreamReset():
                    if self._drop(event.stream_id or 0):
                        found.append(Ended(event.stream_id or 0))
                case h2.events.ConnectionTerminated():
                    self.is_ending = True
        self._send_all()
        return found

    def _opened(self, event: h2.events.RequestReceived, found: list[Event]) -> None:
        number = event.stream_id or 0
        headers: dict[str, str] = {}
        for name, value in event.headers or ():
            headers.setdefault(str(name), str(value))
        stream = self._streams[number] = _Stream()
        # A call with a body that is none of gRPC's is refused in HTTP, as that protocol's page has it
        if headers.get(":method") != "POST" or headers.get("content-type") not in _CONTENT_TYPES:
            stream.http_status = "415"
            self._send(number, stream)
            return
        if headers.get("grpc-encoding", "identity") != "identity":
            self.finish(number, RpcError(Code.UNIMPLEMENTED, "compressed messages are not read: send them as they are"))
            return
        timeout = None
        if (said := headers.get("grpc-timeout")) is not None:
            if (match := _TIMEOUT.fullmatch(said)) is None:
                self.finish(number, RpcError(Code.INVALID_ARGUMENT, "grpc-timeout is none"))
                return
            timeout = int(match[1]) * _UNITS[match[2]]
        found.append(Opened(number, headers.get(":path", ""), timeout))

    def _data(self, event: h2.events.DataReceived, found: list[Event]) -> None:
        number = event.stream_id or 0
        held = event.flow_controlled_length or 0
        stream = self._streams.get(number)
        if stream is None or not stream.is_heard:
            self._acknowledge(number, held)
            return
        stream.partial += event.data or b""
        stream.held += held
        while len(stream.partial) >= _PREFIX.size:
            compressed, length = _PREFIX.unpack_from(stream.partial)
            if compressed or length > LONGEST_MESSAGE:
                why = f"a message has {length} bytes, of {LONGEST_MESSAGE} that one may have"
                refusal = (
                    RpcError(Code.UNIMPLEMENTED, "compressed messages are not read: send them as they are")
                    if compressed
                    else RpcError(Code.RESOURCE_EXHAUSTED, why)
                )
                found.append(Ended(number))
                self.finish(number, refusal)
                return
            end = _PREFIX.size + length
            if len(stream.partial) < end:
                return
            message = bytes(stream.partial[_PREFIX.size : end])
            del stream.partial[:end]
            stream.untaken.append(stream.held)
            stream.held = 0
            found.append(Message(number, message))

    def _half_closed(self, number: int, stream: _Stream, found: list[Event]) -> None:
        stream.is_heard = False
        if stream.partial:
            found.append(Ended(number))
            self.finish(number, RpcError(Code.INTERNAL, "the last message is not whole"))
        else:
            found.append(HalfClosed(number))

    def taken(self, number: int) -> None:
        """The oldest message of that call was used: the caller may send as much again."""
        stream = self._streams.get(number)
        if stream is not None and stream.untaken:
            self._acknowledge(number, stream.untaken.popleft())

    def _acknowledge(self, number: int, held: int) -> None:
        if held:
            try:
                self._h2.acknowledge_received_data(held, number)
            except h2.exceptions.ProtocolError:  # the stream is gone, and its window with it
                self._h2.increment_flow_control_window(held)

    # out ----------------------------------------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        """Says that the call is taken, before there is anything to reply."""
        stream = self._streams.get(number)
        if stream is not None and not stream.has_begun and stream.trailers is None:
            stream.has_begun = True
            try:
                self._h2.send_headers(number, _BEGIN)
            except h2.exceptions.ProtocolError:  # as in _send
                self._drop(number)

    def reply(self, number: int, message: bytes) -> None:
        """Sends one message as soon as the peer's windows let it; nothing if the call is over."""
        stream = self._streams.get(number)
        if stream is None or stream.trailers is not None:
            return
        self.begin(number)
        if number not in self._streams:
            return
        data = _PREFIX.pack(0, len(message)) + message
        stream.out.append(memoryview(data))
        stream.waits += len(data)
        self.pending += len(data)
        self._send(number, stream)

    def finish(self, number: int, error: RpcError | None = None) -> None:
        """Ends the call behind what was replied; nothing if it is over."""
        stream = self._streams.get(number)
        if stream is None or stream.trailers is not None:
            return
        trailers: _Headers = [] if stream.has_begun else list(_BEGIN)
        trailers.append(("grpc-status", str(int(error.code if error else Code.OK))))
        if error is not None:
            trailers.append(("grpc-message", _percent(error.text)))
            if details := error.details():
                trailers.append(("grpc-status-details-bin", base64.b64encode(details).decode().rstrip("=")))
        stream.trailers = trailers
        self._send(number, stream)

    def _send(self, number: int, stream: _Stream) -> None:
        """As much as the peer's windows let."""
        try:
            if stream.http_status:
                self._h2.send_headers(number, [(":status", stream.http_status)], end_stream=True)
                self._hang_up(number, stream)
                return
            window = self._h2.local_flow_control_window(number)
            while stream.out and window > 0:
                piece = stream.out[0]
                size = min(len(piece), window, self._h2.max_outbound_frame_size)
                self._h2.send_data(number, bytes(piece[:size]))
                window -= size
                stream.waits -= size
                self.pending -= size
                if size == len(piece):
                    stream.out.popleft()
                else:
                    stream.out[0] = piece[size:]
            if not stream.out and stream.trailers is not None:
                self._h2.send_headers(number, stream.trailers, end_stream=True)
                self._hang_up(number, stream)
        except h2.exceptions.ProtocolError:  # it was ended meanwhile; the event that says so is on its way
            self._drop(number)

    def _send_all(self) -> None:
        for number, stream in list(self._streams.items()):
            if stream.out or stream.trailers is not None:
                self._send(number, stream)

    def _hang_up(self, number: int, stream: _Stream) -> None:
        """All is said. A caller that would say more is told that nobody listens (RFC 9113 section 8.1)."""
        if stream.is_heard:
            with suppress(h2.exceptions.ProtocolError):  # what it had to say is said: the end of it is on its way
                self._h2.reset_stream(number, h2.errors.ErrorCodes.NO_ERROR)
        self._drop(number)

    def _drop(self, number: int) -> bool:
        stream = self._streams.pop(number, None)
        if stream is None:
            return False
        self.pending -= stream.waits
        held = sum(stream.untaken) + stream.held
        if held:
            self._h2.increment_flow_control_window(held)
        return True

    def ping(self) -> None:
        """Asks the peer to answer."""
        if not self.is_ending:
            with suppress(h2.exceptions.ProtocolError):
                self._h2.ping(b"septum\0\0")

    def go_away(self, is_flood: bool = False) -> None:
        """No further call is taken; whoever has ``output`` closes behind it."""
        if not self.is_ending:
            self.is_ending = True
            codes = h2.errors.ErrorCodes
            with suppress(h2.exceptions.ProtocolError):
                self._h2.close_connection(codes.ENHANCE_YOUR_CALM if is_flood else codes.NO_ERROR)

    def output(self) -> bytes:
        """What is to be sent now."""
        data: bytes = self._h2.data_to_send()
        return data


_BEGIN: Final[_Headers] = [(":status", "200"), ("content-type", "application/grpc")]


def _percent(text: str) -> str:
    """As grpc-message is written: printable ASCII but ``%`` as it is, all other bytes as ``%XX``."""
    raw = text.encode("utf-8", "replace")[:2048]
    return "".join(chr(b) if 0x20 <= b <= 0x7E and b != 0x25 else f"%{b:02X}" for b in raw)
