# cython: language_level=3, boundscheck=True, wraparound=False
"""The short way of a lone packet through `encrypt` and `decrypt`: see appliance/vchan/short.pyx.

What becomes of a packet is the interpreter's to find out (sending.py, receiving.py). What it found it may *lease*, for
the next moment and for packets to or from the same address in the same session; whatever changes what it went by, takes
all leases back. A counter is used once, whoever seals: there is one for each key, in its Sealer.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from appliance.guest.short cimport Lease, Leasing
from appliance.vchan.short cimport End, Lone, datagrams_tail, head, packets_tail, read_datagrams, read_packets
from components.crypto.fast cimport Opener, Sealer

from components.crypto import constants

cdef enum:
    LONGEST = 1900  # bytes of a packet: sealed, and with all that stands around it, it is a message of at most MOST
    HEADER = 16
    OVERHEAD = 32
    TRANSPORT_DATA = 4

cdef uint64_t REJECT_AFTER_MESSAGES = constants.REJECT_AFTER_MESSAGES


cdef uint64_t get(const uint8_t *data, int bytes_) noexcept:
    """Little-endian."""
    cdef uint64_t value = 0
    cdef int i
    for i in range(bytes_):
        value |= <uint64_t> data[i] << (8 * i)
    return value


cdef Py_ssize_t whole(const uint8_t *packet, Py_ssize_t size) noexcept:
    """Total length of the IP packet in ``size`` bytes; 0 if no whole one is there (ip.py)."""
    cdef Py_ssize_t header
    cdef Py_ssize_t length
    if size < 20:
        return 0
    if packet[0] >> 4 == 4:
        header, length = 4 * (packet[0] & 15), <Py_ssize_t> packet[2] << 8 | packet[3]
    elif packet[0] >> 4 == 6 and size >= 40:
        header, length = 40, 40 + (<Py_ssize_t> packet[4] << 8 | packet[5])
    else:
        return 0
    return length if 20 <= header <= length <= size else 0


cdef class _Lease(Lease):
    """Of a session."""

    cdef uint8_t inner[16]  # the address that decides whose packet it is
    cdef Py_ssize_t inner_bytes
    cdef uint8_t address[16]  # of the endpoint
    cdef Py_ssize_t address_bytes
    cdef uint32_t port

    cdef int learn(self, const uint8_t[::1] inner, const uint8_t[::1] address, uint32_t port) except -1:
        if inner.shape[0] not in (4, 16) or address.shape[0] not in (4, 16) or not 0 < port < 65536:
            raise ValueError("no address")
        self.inner_bytes, self.address_bytes, self.port = inner.shape[0], address.shape[0], port
        memcpy(self.inner, &inner[0], self.inner_bytes)
        memcpy(self.address, &address[0], self.address_bytes)
        return 0

    cdef bint is_of(self, const uint8_t *packet, Py_ssize_t at4, Py_ssize_t at6) noexcept:
        """Whether the address of a whole packet, at ``at4`` or ``at6`` of it, is the one that was leased."""
        if packet[0] >> 4 == 4:
            return self.inner_bytes == 4 and memcmp(packet + at4, self.inner, 4) == 0
        return self.inner_bytes == 16 and memcmp(packet + at6, self.inner, 16) == 0


cdef class _Sending(_Lease):
    cdef Sealer sealer
    cdef uint32_t receiver


cdef class Sealing(Leasing):
    """A packet from the filter to black. ``mtu`` bounds the padding."""

    cdef Py_ssize_t mtu

    def __init__(self, End inward not None, End outward not None, settled, Py_ssize_t mtu):
        super().__init__(inward, outward, settled)
        self.mtu = mtu

    def lease(
        self, const uint8_t[::1] destination not None, session, Sealer sealer not None, uint32_t receiver,
        const uint8_t[::1] address not None, uint32_t port, double until,
    ):
        """What goes to ``destination`` is sealed by ``sealer`` for ``receiver`` at this endpoint."""
        cdef _Sending lease = _Sending()
        lease.learn(destination, address, port)
        lease.of, lease.sealer, lease.receiver, lease.until = session, sealer, receiver, until
        self.keep(lease)

    cdef int go(self, double now) except -1:
        cdef Lone found
        cdef const uint8_t *packet
        cdef Py_ssize_t padded, at
        cdef Py_ssize_t length
        cdef uint64_t counter
        cdef object one
        cdef _Sending lease
        if not self.leases:
            return 0
        length = self.inward.peek(self.message, sizeof(self.message))
        if not length or not read_packets(self.message, length, &found) or found.peer:
            return 0
        packet = self.message + found.at
        if found.length > LONGEST or whole(packet, found.length) != found.length:
            return 0
        for one in self.leases:
            lease = <_Sending> one
            if lease.is_of(packet, 16, 24):
                break
        else:
            return 0
        if now >= lease.until or not self.outward.fits(LONGEST + 96):
            return 0
        counter = lease.sealer.counter
        if counter >= REJECT_AFTER_MESSAGES:
            return 0
        padded = found.length + (-found.length & 15)
        if padded > self.mtu:
            padded = max(found.length, self.mtu)
        lease.sealer.counter = counter + 1  # first: whatever happens below, no counter is ever used twice
        at = head(self.out, padded + OVERHEAD)
        if not lease.sealer.one(packet, found.length, padded - found.length, lease.receiver, counter, self.out + at):
            return 0
        at += padded + OVERHEAD
        at += datagrams_tail(self.out + at, padded + OVERHEAD, lease.address, lease.address_bytes, lease.port)
        return self.passed(lease, padded + OVERHEAD, length, self.out, at)


cdef class _Receiving(_Lease):
    cdef Opener opener
    cdef uint32_t receiver
    cdef uint32_t peer
    cdef uint64_t first  # counter not yet committed to the session's window
    cdef uint64_t following  # the one that is due


cdef class Opening(Leasing):
    """A datagram from black to the filter. ``committed(session, first, count)`` has the window told."""

    def lease(
        self, const uint8_t[::1] source not None, session, Opener opener not None, uint32_t receiver, uint32_t peer,
        uint64_t following, const uint8_t[::1] address not None, uint32_t port, double until,
    ):
        """What comes for ``receiver`` from this endpoint, under the counters from ``following`` on in succession, is
        opened by ``opener``, and is ``peer``'s if it is from ``source``.
        """
        cdef _Receiving lease = _Receiving()
        lease.learn(source, address, port)
        lease.of, lease.opener, lease.receiver, lease.peer, lease.until = session, opener, receiver, peer, until
        lease.first = lease.following = following
        self.keep(lease)

    def moved(self, session):
        """The window of ``session`` has changed."""
        self.leases = [one for one in self.leases if (<Lease> one).of is not session]

    cdef int account(self, Lease lease, packets, octets) except -1:
        cdef _Receiving one = <_Receiving> lease
        first, one.first = one.first, one.following
        self.settled(lease.of, packets, octets, first)
        return 0

    cdef int go(self, double now) except -1:
        cdef Lone found
        cdef const uint8_t *datagram
        cdef Py_ssize_t length, plain, inner, at, length_out
        cdef uint32_t receiver
        cdef uint64_t counter
        cdef object one
        cdef _Receiving lease
        if not self.leases:
            return 0
        length = self.inward.peek(self.message, sizeof(self.message))
        if not length or not read_datagrams(self.message, length, &found):
            return 0
        datagram = self.message + found.at
        plain = found.length - OVERHEAD
        if not 0 < plain <= LONGEST or get(datagram, 4) != TRANSPORT_DATA:
            return 0
        receiver, counter = <uint32_t> get(datagram + 4, 4), get(datagram + 8, 8)
        for one in self.leases:
            lease = <_Receiving> one
            if lease.receiver == receiver:
                break
        else:
            return 0
        if (
            now >= lease.until
            or counter != lease.following
            or counter >= REJECT_AFTER_MESSAGES
            or found.port != lease.port
            or found.address_bytes != lease.address_bytes
            or memcmp(found.address, lease.address, lease.address_bytes) != 0
            or not self.outward.fits(LONGEST + 96)
            or not lease.opener.begin(datagram, plain, counter)
        ):
            return 0
        # To behind the longest head there is: where the message begins is known once the packet's length is
        if not lease.opener.one(datagram, plain, self.out + 4):
            return 0
        inner = whole(self.out + 4, plain)
        if not inner or not lease.is_of(self.out + 4, 12, 8):
            return 0
        at = 4 - (2 if inner < 128 else 3 if inner < 16384 else 4)
        head(self.out + at, inner)
        length_out = 4 + inner - at
        length_out += packets_tail(self.out + 4 + inner, inner, lease.peer)
        lease.following = counter + 1
        return self.passed(lease, found.length, length, self.out + at, length_out)
