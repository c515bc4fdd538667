# cython: language_level=3, boundscheck=True, wraparound=False
"""The short way of a lone packet through `filter`: see appliance/vchan/short.pyx.

The rules are the interpreter's. Of a flow whose packets, from one side, all go by one rule and change nothing, it may
*lease* the next moment (leases.py): bytes that a packet must have, and where it goes then. Whatever ends or changes a
flow takes all leases back before the next packet is looked at.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from appliance.guest.short cimport Way
from appliance.vchan.short cimport MOST, End, Lone, head, packets_tail, read_packets

cdef enum:
    LEASES = 8
    COMPARED = 48  # bytes at the most: the headers of IPv6, and 8 of what follows
    LONGEST = 1984


cdef class _Lease:
    cdef object flow
    cdef uint8_t expected[COMPARED]
    cdef uint8_t mask[COMPARED]
    cdef Py_ssize_t compared
    cdef uint32_t peer
    cdef double until
    cdef double last
    cdef uint64_t packets
    cdef uint64_t octets

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


cdef class Passing(Way):
    """One packet from one side to the other. ``changes()``: a number that goes up whenever leases must not hold any
    more; ``settled(flow, packets, octets, last)`` is told what went by each. ``keeps_peer``: whether the peer that it
    came from stands in what goes out.
    """

    cdef End inward
    cdef End outward
    cdef bint keeps_peer
    cdef object changes
    cdef object settled
    cdef object seen
    cdef list leases
    cdef uint8_t message[MOST]
    cdef uint8_t out[MOST]

    def __init__(self, End inward not None, End outward not None, bint keeps_peer, changes, settled):
        self.fd, self.inward, self.outward, self.keeps_peer = inward.wait_fd, inward, outward, keeps_peer
        self.changes, self.settled = changes, settled
        self.leases = []
        self.seen = changes()

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
        lease.flow, lease.peer, lease.until = flow, peer, until
        kept = [one for one in self.leases if (<_Lease> one).flow is not flow] if self.seen == self.changes() else []
        self.seen = self.changes()
        self.leases = [*kept, lease] if len(kept) < LEASES else [lease]

    cpdef object begin(self):
        if self.leases and self.seen != self.changes():
            self.leases = []

    cpdef object settle(self):
        cdef _Lease lease
        for lease in self.leases:
            if lease.packets:
                packets, octets = lease.packets, lease.octets
                lease.packets = lease.octets = 0
                self.settled(lease.flow, packets, octets, lease.last)

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
        self.outward.put(self.out, at)
        self.inward.took(length)
        lease.packets += 1
        lease.octets += found.length
        lease.last = now
        self.used = True
        return 1
