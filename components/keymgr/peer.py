"""One peer: what section 6 of the WireGuard paper makes happen when something is sent, is received, or is not.

A peer is at most twice in a handshake: once as initiator (``_pending``, from our initiation to the response, repeated
by RETRY) and once as responder (``keyring.next``, from the response to the first packet under its keys). The two do not
disturb each other. When both ends begin at the same time each therefore ends with two good sessions, sends with the one
it began and receives with both; a peer that forgets its own initiation when ours arrives, as the usual implementations
do, takes ours.

Reports of what was sent and received come from two domains, each up to REPORT_LAG late, so that cause and effect may
arrive in either order. What was sent counts as answered by what was received up to REPORT_LAG before the report of it,
and a packet does not count as an answer to what arrived within REPORT_LAG before its report. At worst this costs one
keepalive too many, or a dead peer is noticed at the next packet rather than at this one.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable
from typing import Final

from components.keymgr.constants import (
    INDEX,
    INITIATION_SPACING,
    KEY,
    REJECT_AFTER_MESSAGES,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME,
    REKEY_ATTEMPT_TIME,
    REKEY_JITTER,
    REKEY_ON_RECEIVE_TIME,
    REKEY_TIMEOUT,
    REPORT_LAG,
)
from components.keymgr.cookie import CookieJar
from components.keymgr.events import (
    HidePeer,
    ReceivePeer,
    ReceiveReport,
    ReceiveSession,
    SendEndpoint,
    SendForget,
    SendHandshake,
    SendKeepalive,
    SendPeer,
    SendReport,
    SendSession,
    ShowPeer,
)
from components.keymgr.messages import CookieReply, Response
from components.keymgr.noise import NO_PSK, HandshakeError, Initiator, Responder, TransportKeys, wipe
from components.keymgr.sessions import Keyring, Session
from components.keymgr.settings import PeerSettings
from components.keymgr.shared import INFO, WARNING, Shared
from components.keymgr.timers import DELAYS, OF_A_PEER, RESTARTS, STARTS, STOPS, Happened, Timer

Random = Callable[[int], bytes]  # so many fresh random bytes; it must not fail

RANDOM_PER_HANDSHAKE: Final = KEY + INDEX + 2  # ephemeral key, index, jitter
_NEVER: Final = float("-inf")
_MASK: Final = 2**64 - 1  # totals are shown as 64-bit words, whatever the reports add up to


def where(address: bytes, port: int) -> str:
    """An endpoint as people write it."""
    host = ipaddress.ip_address(address)
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


def _name(settings: PeerSettings) -> str:
    text = base64.b64encode(settings.public_key).decode()
    return settings.name or f"peer({text[:4]}…{text[39:43]})"


def _psk(settings: PeerSettings) -> bytes:
    return settings.preshared_key.reveal() if settings.preshared_key else NO_PSK


class Peer:
    """The state of one peer. Methods are told what happened; they emit events and set timers."""

    def __init__(self, number: int, settings: PeerSettings, shared: Shared) -> None:
        """``settings.endpoint`` must be numeric."""
        self.number = number
        self.name = _name(settings)
        self.public = settings.public_key
        self.settings = settings
        self.keyring = Keyring()
        # A handshake as soon as there is somebody to give the keys to. At first: whoever keeps a tunnel alive wants one
        # now, others once there is traffic
        self.owed = settings.keepalive > 0 and settings.endpoint is not None
        self.endpoint = (settings.endpoint.address(), settings.endpoint.port) if settings.endpoint else None
        self._shared = shared
        self._psk = _psk(settings)
        self._static_static: bytearray | None = None
        self._jar = CookieJar(self.public)
        self._pending: Initiator | None = None
        self._pending_index = 0
        self._trying_since: float | None = None  # when the attempt began that RETRY goes on with
        self._is_urgent = False
        self._last_sent_handshake = _NEVER
        self._last_initiation = _NEVER  # received
        self._last_received = _NEVER
        self._last_data_received = _NEVER
        self._completed_at: float | None = None
        self._sent_bytes = 0
        self._received_bytes = 0

    # small things -------------------------------------------------------------------------------------------------

    def static_static(self) -> bytearray:
        """DH(S_i, S_r), computed once. Errors: HandshakeError if the peer's key has a small order."""
        if self._static_static is None:
            self._static_static = self._shared.static.dh(self.public)
        return self._static_static

    def _note(self, happened: Happened, now: float) -> None:
        """Sets and stops timers as the tables in timers.py say."""
        timers = self._shared.timers
        for timer in STOPS.get(happened, ()):
            timers.stop((timer, self.number))
        for timer in STARTS.get(happened, ()):
            if not timers.runs((timer, self.number)):
                timers.start((timer, self.number), now + DELAYS[timer])
        for timer in RESTARTS.get(happened, ()):
            delay = self.settings.keepalive if timer is Timer.PERSISTENT else DELAYS[timer]
            if delay:
                timers.start((timer, self.number), now + delay)

    def _retire(self, sessions: list[Session], now: float) -> None:
        for session in sessions:
            self._shared.retire(session, now)

    def _moved(self, address: bytes, port: int, now: float) -> None:
        """Roaming (2.1): the peer is where its newest authenticated packet came from."""
        if self.endpoint == (address, port):
            return
        self.endpoint = (address, port)
        current = self.keyring.current
        if current is not None and current.sends:  # a session to come brings its endpoint along
            self._shared.emit(SendEndpoint(self.number, address, port))
        self._shared.log(now, INFO, "peer-moved", f"{self.name} is at {where(address, port)}")

    def _show(self) -> None:
        self._shared.emit(self.state())

    def announce_to_encrypt(self) -> None:
        self._shared.emit(SendPeer(self.number, self.settings.allowed_ips, self.public))

    def announce_to_decrypt(self) -> None:
        self._shared.emit(ReceivePeer(self.number, self.settings.allowed_ips, self.public))

    def state(self) -> ShowPeer:
        """How it fares."""
        address, port = self.endpoint or (b"", 0)
        return ShowPeer(self.number, self._completed_at, self._received_bytes, self._sent_bytes, address, port)

    # we begin -----------------------------------------------------------------------------------------------------

    def begin(self, now: float, urgent: bool = False, delay: float = 0.0) -> None:
        """A handshake is wanted, in ``delay`` seconds; an ``urgent`` one waits for nothing.

        Asking again while one is under way gives it another REKEY_ATTEMPT_TIME to succeed (6.4).
        """
        trying = self._trying_since is not None
        self._trying_since = now
        self._is_urgent = self._is_urgent or urgent
        if urgent or not trying:
            self._shared.timers.start((Timer.RETRY, self.number), now + delay)

    def retry(self, now: float, wall: float, random: Random) -> None:
        """RETRY ran out: sends an initiation (5.4.2), or gives up after REKEY_ATTEMPT_TIME (6.4)."""
        since = now if self._trying_since is None else self._trying_since
        if now - since > REKEY_ATTEMPT_TIME:
            self._give_up(now)
            return
        earliest = self._last_sent_handshake + REKEY_TIMEOUT  # 6.4, and a response may yet do what this one would
        if now < earliest and not self._is_urgent:
            self._shared.timers.start((Timer.RETRY, self.number), earliest)
            return
        self._is_urgent = False
        index = self._shared.new_index(random(INDEX), self.number)
        ephemeral = bytearray(random(KEY))
        jitter = int.from_bytes(random(2), "little") / 2**16 * REKEY_JITTER
        self._shared.timers.start((Timer.RETRY, self.number), now + REKEY_TIMEOUT + jitter)
        self._drop_pending()
        if self.endpoint is None:
            text = f"{self.name} has no endpoint yet: packets wait until it calls or gives one"
            self._shared.log(now, WARNING, "no-endpoint", text)
            return
        try:
            self._pending = Initiator(
                self._shared.static,
                self.public,
                self.static_static(),
                psk=self._psk,
                ephemeral=ephemeral,
                index=index,
                timestamp=self._shared.floor.stamp(self.public, wall),
            )
        except HandshakeError as refused:
            self._shared.log(now, WARNING, "handshake-refused", f"{self.name}: {refused}")
            return
        finally:
            wipe(ephemeral)
        self._pending_index = index
        self._shared.pending[index] = self.number
        self._shared.counts["initiations_sent"] += 1
        self._send(self._pending.body, self.endpoint, now)
        self._shared.log(now, INFO, "initiation-sent", f"to {self.name} at {where(*self.endpoint)}")

    def finish(self, untrusted_response: Response, address: bytes, port: int, now: float) -> None:
        """The response to our initiation (5.4.3): one more session, sent with from now on.

        Errors: HandshakeError; nothing has changed then.
        """
        if self._pending is None or untrusted_response.receiver != self._pending_index:
            raise HandshakeError("answers no initiation of ours")
        keys = self._pending.finish(untrusted_response)
        session = Session(self.number, self._pending_index, untrusted_response.sender, True, now)
        self._drop_pending()
        self._moved(address, port, now)
        self._heard(now)
        self._derived(session, keys, now)
        self._retire(self.keyring.began(session), now)
        self._completed(now)
        # The responder may send only once it heard from us under these keys
        self._hand_out_send_key(session, confirm=True)

    def _give_up(self, now: float) -> None:
        self._shared.log(
            now, WARNING, "handshake-given-up", f"{self.name} did not answer for {REKEY_ATTEMPT_TIME:.0f} s"
        )
        self._trying_since = None
        self._drop_pending()
        self._shared.timers.stop((Timer.KEEPALIVE, self.number))
        if self.keyring.current is None:
            self._shared.emit(SendForget(self.number))  # what waits has waited long enough

    def _drop_pending(self) -> None:
        if self._pending is not None:
            self._pending.wipe()
            self._pending = None
            del self._shared.pending[self._pending_index]

    # the peer begins ----------------------------------------------------------------------------------------------

    def answer(self, responder: Responder, address: bytes, port: int, now: float, random: Random) -> None:
        """An initiation that was authenticated (5.4.2): answers it (5.4.3), and waits for its confirmation.

        Errors: HandshakeError if the peer sends too many, or sent this one before.
        """
        timestamp = responder.authenticate(self.static_static())
        if now - self._last_initiation < INITIATION_SPACING:
            raise HandshakeError("follows the one before too closely")
        if not self._shared.floor.accept(self.public, timestamp):
            raise HandshakeError("is a replay, or its clock stepped back")
        self._last_initiation = now
        self._moved(address, port, now)
        self._heard(now)
        index = self._shared.new_index(random(INDEX), self.number)
        ephemeral = bytearray(random(KEY))
        body, keys = responder.respond(index, self._psk, ephemeral)
        wipe(ephemeral)
        session = Session(self.number, index, responder.receiver, False, now, send_key=keys.send)
        self._derived(session, keys, now)
        self._retire(self.keyring.answered(session), now)
        self._shared.counts["responses_sent"] += 1
        self._send(body, (address, port), now)

    # both ---------------------------------------------------------------------------------------------------------

    def _send(self, body: bytes, endpoint: tuple[bytes, int], now: float) -> None:
        self._last_sent_handshake = now
        self._shared.emit(SendHandshake(self._jar.sign(body, now), *endpoint))
        self._note(Happened.SENT, now)
        self._note(Happened.TRAVERSED, now)

    def _heard(self, now: float) -> None:
        self._last_received = now
        self._note(Happened.RECEIVED, now)
        self._note(Happened.TRAVERSED, now)

    def _derived(self, session: Session, keys: TransportKeys, now: float) -> None:
        """Receiving may begin at once, on both sides."""
        self._shared.add(session)
        self._shared.emit(ReceiveSession(self.number, session.index, keys.receive))
        if session.is_initiator:
            session.send_key = keys.send
        self._note(Happened.DERIVED, now)

    def _completed(self, now: float) -> None:
        self._shared.counts["handshakes"] += 1
        self._completed_at = now
        self._trying_since = None
        self.owed = False
        self._drop_pending()
        self._show()
        self._note(Happened.COMPLETED, now)

    def _hand_out_send_key(self, session: Session, confirm: bool) -> None:
        assert self.endpoint is not None  # a handshake came from somewhere
        key = session.take_send_key()
        order = SendSession(self.number, session.index, session.receiver, key, *self.endpoint, confirm)
        self._shared.emit(order)

    def cookie(self, untrusted_reply: CookieReply, now: float) -> None:
        """A cookie for the next message; RETRY sends it in its own time (6.6). Errors: CookieError."""
        self._jar.consume(untrusted_reply, now)

    # reports ------------------------------------------------------------------------------------------------------

    def _refuse_report(self, who: str, now: float) -> None:
        text = f"from {who}: fewer bytes with {self.name} than it told before"
        self._shared.log(now, WARNING, "report-refused", text)

    def sent(self, session: Session, report: SendReport, now: float) -> None:
        """encrypt sent packets of ``session``."""
        packets = report.packets - session.sent
        data = report.data_packets - session.sent_data
        octets = report.octets - session.sent_bytes
        if packets <= 0:
            return
        if octets < 0:
            self._refuse_report("encrypt", now)
            return
        self._sent_bytes = (self._sent_bytes + octets) & _MASK
        session.sent, session.sent_data, session.sent_bytes = report.packets, report.data_packets, report.octets
        self._show()
        self._note(Happened.TRAVERSED, now)
        if data > 0:
            if now - self._last_received > REPORT_LAG:
                self._note(Happened.DATA_SENT, now)
            self._note(Happened.SENT, now)
            if now - self._last_data_received <= REPORT_LAG:  # what was sent may be older than that
                due = self._last_data_received + DELAYS[Timer.KEEPALIVE]
                self._shared.timers.start((Timer.KEEPALIVE, self.number), due)
        if session is not self.keyring.current:
            return
        if session.sent >= REJECT_AFTER_MESSAGES:  # 6.2
            self.expire(session, now)
            self.begin(now)
        elif session.sent > REKEY_AFTER_MESSAGES or (  # 6.2
            session.is_initiator and now - session.created >= REKEY_AFTER_TIME
        ):
            # Two that began together would go on beginning together, but for this
            self.begin(now, delay=session.jitter * REKEY_JITTER)

    def received(self, session: Session, report: ReceiveReport, now: float) -> None:
        """decrypt opened packets of ``session``."""
        packets = report.packets - session.received
        data = report.data_packets - session.received_data
        octets = report.octets - session.received_bytes
        if packets <= 0:
            return
        if octets < 0:
            self._refuse_report("decrypt", now)
            return
        self._received_bytes = (self._received_bytes + octets) & _MASK
        session.received, session.received_data = report.packets, report.data_packets
        session.received_bytes = report.octets
        self._moved(report.address, report.port, now)
        self._show()
        self._heard(now)
        if data > 0:
            self._last_data_received = now
            self._note(Happened.DATA_RECEIVED, now)
        if session is self.keyring.next:
            self._confirm(session, now)
        elif (
            session is self.keyring.current
            and session.is_initiator
            and self._trying_since is None
            and now - session.created >= REKEY_ON_RECEIVE_TIME  # 6.3
        ):
            self.begin(now)

    def _confirm(self, session: Session, now: float) -> None:
        """The initiator has the keys: we may send with ours (5.4.6)."""
        self._retire(self.keyring.confirmed(), now)
        self._completed(now)
        self._hand_out_send_key(session, confirm=False)
        self._shared.log(now, INFO, "session-confirmed", f"with {self.name}, which began it")

    def unknown_session(self, index: int, now: float) -> None:
        """A report names a session from before our time: we were reborn, and know nothing but that the peer lives."""
        if self.keyring.current is None and self._trying_since is None:
            self._shared.log(now, INFO, "session-unknown", f"{self.name} has session {index:#010x} of an earlier life")
            self.begin(now)

    def unknown_received(self, report: ReceiveReport, now: float) -> None:
        """The same from decrypt, which also says where the peer is. Both end that session when its time is over."""
        if self.keyring.current is None:
            self._moved(report.address, report.port, now)
            self.unknown_session(report.session, now)

    # timers -------------------------------------------------------------------------------------------------------

    def keepalive(self) -> None:
        """KEEPALIVE ran out (6.5)."""
        current = self.keyring.current
        if current is not None and current.sends:
            self._shared.emit(SendKeepalive(self.number))

    def persistent_keepalive(self, now: float) -> None:
        """PERSISTENT ran out: nothing went either way for the peer's interval."""
        self._note(Happened.TRAVERSED, now)
        current = self.keyring.current
        if current is not None and current.sends:
            self._shared.emit(SendKeepalive(self.number))
        else:
            self.begin(now)

    def not_answered(self, now: float) -> None:
        """NEW_HANDSHAKE ran out: what we sent brought nothing back (6.5)."""
        self._shared.log(now, INFO, "peer-silent", f"{self.name} does not answer: a new handshake")
        self.begin(now)

    def expire(self, session: Session, now: float) -> None:
        """EXPIRE ran out: neither end may use ``session`` any more (6.2)."""
        if session is self.keyring.current and session.sends:
            self._shared.emit(SendForget(self.number))
        self._retire(self.keyring.remove(session), now)

    def zero(self, now: float) -> None:
        """ZERO ran out (6.3): nothing ephemeral is left."""
        self._retire(self.keyring.clear(), now)
        self._jar.empty()

    # its settings change ------------------------------------------------------------------------------------------

    def change(self, settings: PeerSettings, now: float) -> None:
        """Other settings of the same public key, as `wg set` has it: sessions live on, a preshared key counts from the
        next handshake on, and an endpoint that is not given is the one that it was last heard from."""
        before, self.settings = self.settings, settings
        self.name = _name(settings)
        if settings.preshared_key != before.preshared_key:
            self._psk = _psk(settings)
            if self._pending is not None:  # it was begun with the other one
                self._drop_pending()
                self.begin(now, urgent=True)
        if settings.endpoint is not None and settings.endpoint != before.endpoint:
            self._moved(settings.endpoint.address(), settings.endpoint.port, now)
            if self._trying_since is not None:  # at the place where it is not
                self.begin(now, urgent=True)
        if settings.keepalive != before.keepalive:
            self._shared.timers.stop((Timer.PERSISTENT, self.number))
            if settings.keepalive and not before.keepalive and (self.endpoint or self.keyring.current):
                self.persistent_keepalive(now)
            self._note(Happened.TRAVERSED, now)

    def rekeyed(self, now: float) -> None:
        """We have another private key. Sessions are what they are; a handshake under way is begun anew."""
        if self._static_static is not None:
            wipe(self._static_static)
            self._static_static = None
        if self._pending is not None:
            self._drop_pending()
            self.begin(now, urgent=True)

    def remove(self, now: float) -> int:
        """It is no peer any more: nothing of it is left here. Returns how many sessions that ends."""
        sessions = self.keyring.clear()
        self._retire(sessions, now)
        self._drop_pending()
        self._jar.empty()
        self._psk = NO_PSK
        if self._static_static is not None:
            wipe(self._static_static)
        for timer in OF_A_PEER:
            self._shared.timers.stop((timer, self.number))
        self._shared.emit(HidePeer(self.number))
        return len(sessions)

    # the crypto domains come and go -------------------------------------------------------------------------------

    def postpone(self) -> None:
        """There is nobody to give keys to: no handshake now, but one as soon as there is."""
        self.owed = True
        self._trying_since = None

    def lost_encrypt(self) -> None:
        """encrypt died: a send key that it had is never used again. What arrives can still be opened."""
        for session in self.keyring.all():
            self.owed = True
            session.sends = False

    def lost_decrypt(self, now: float) -> None:
        """decrypt died, and its replay windows with it: none of the sessions can be received with again."""
        sessions = self.keyring.clear()
        self.owed = self.owed or bool(sessions)
        self._retire(sessions, now)
