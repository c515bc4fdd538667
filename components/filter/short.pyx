# cython: language_level=3, boundscheck=True, wraparound=False
"""The short way of a lone packet through `filter`: see appliance/vchan/short.pyx.

The rules are the interpreter's. Of a flow whose packets, from one side, all go by one rule and change nothing, it may
*lease* the next moment (leases.py): bytes that a packet must have, and where it goes then. Whatever ends or changes a
flow takes all leases back before the next packet is looked at.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from appliance.guest.short cimport Lease, Leasing
from appliance.vchan.short cimport End, Lone, head, packets_tail, read_packets

cdef enum:
    COMPARED = 48  # bytes at the most: the headers of IPv6, and 8 of what follows
    LONGEST = 1984


cdef class _Lease(Lease):
    """Of a flow."""

    cdef uint8_t expected[COMPARED]
    cdef uint8_t mask[COMPARED]
    cdef Py_ssize_t compared
    cdef uint32_t peer
    cdef double last

    cdef bint holds(self, const uint8_t *packet, Py_ssize_t length) noexcept:
        """Whether a packet of this length has the bytes that were leased."""
        cdef Py_ssize_t i
        if length < self.compared:
            return False
        for i in range(self.compared):
            if packet[i] & self.mask[i] != self.expected[i]:
                return False
        if packet[0] >> 4 == 4:
            return (<Py_ssize_t> packet[2] << 8 | packet[3]) == length
        return (<Py_ssize_t> packet[4] << 8 | packet[5]) == length - 40


cdef class Passing(Leasing):
    """One packet from one side to the other. ``changes()``: a number that goes up whenever leases must not hold any
    more; ``settled(flow, packets, octets, last)`` is told what went by each. ``keeps_peer``: whether the peer that it
    came from stands in what goes out.
    """

    cdef bint keeps_peer
    cdef object changes
    cdef object seen

    def __init__(self, End inward not None, End outward not None, bint keeps_peer, changes, settled):
        super().__init__(inward, outward, settled)
        self.keeps_peer, self.changes, self.seen = keeps_peer, changes, changes()

    def lease(self, flow, const uint8_t[::1] expected not None, const uint8_t[::1] mask not None, uint32_t peer, double until):
        """Packets from ``peer`` whose bytes are ``expected`` under ``mask`` pass, until then. In place of what was
        leased of that flow before.
        """
        cdef _Lease lease = _Lease()
        if not 28 <= expected.shape[0] == mask.shape[0] <= COMPARED:
            raise ValueError("no headers")
        lease.compared = expected.shape[0]
        memcpy(lease.expected, &expected[0], lease.compared)
        memcpy(lease.mask, &mask[0], lease.compared)
        lease.of, lease.peer, lease.until = flow, peer, until
        self.begin()
        self.seen = self.changes()
        self.keep(lease)

    cpdef object begin(self):
        if self.leases and self.seen != self.changes():
            self.leases = []

    cdef int account(self, Lease lease, packets, octets) except -1:
        self.settled(lease.of, packets, octets, (<_Lease> lease).last)
        return 0

    cdef int go(self, double now) except -1:
        cdef Lone found
        cdef const uint8_t *packet
        cdef Py_ssize_t at
        cdef Py_ssize_t length
        cdef object one
        cdef _Lease lease
        if not self.leases:
            return 0
        length = self.inward.peek(self.message, sizeof(self.message))
        if not length or not read_packets(self.message, length, &found) or found.length > LONGEST:
            return 0
        packet = self.message + found.at
        for one in self.leases:
            lease = <_Lease> one
            if lease.peer == found.peer and lease.holds(packet, found.length):
                break
        else:
            return 0
        if now >= lease.until or not self.outward.fits(LONGEST + 64):
            return 0
        at = head(self.out, found.length)
        memcpy(self.out + at, packet, found.length)
        at += found.length
        at += packets_tail(self.out + at, found.length, found.peer if self.keeps_peer else 0)
        lease.last = now
        return self.passed(lease, found.length, length, self.out, at)
