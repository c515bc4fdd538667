# cython: language_level=3, boundscheck=True, wraparound=False
"""The sleep of a domain, in which a lone packet takes the short way (appliance/vchan/short.pyx) from where it woke the
domain to where it goes on, and the domain sleeps again.

Nothing of the interpreter runs meanwhile, and nothing is left for it to guess: before it wakes, each way that was used
settles with it, so that it finds all it knows as if it had done the work itself.
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from appliance.vchan.short cimport End

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_wait(int epoll, epoll_event *events, int most, int milliseconds)

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)

cdef enum:
    EVENTS = 64
    MOST_FD = 1024
    LEASES = 8


cdef double monotonic() noexcept:
    """As time.monotonic()."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef class Tally:
    """A Counter of the status page."""

    def __init__(self, counter):
        self.words = counter.words
        self.index = counter.index
        self.words[self.index]  # errors: IndexError now, not later

    cdef void add(self, uint64_t count) noexcept:
        self.words[self.index] += count


cdef class Way:
    """One way through the domain, from what wakes it by ``fd``."""

    cdef int go(self, double now) except -1:
        """Takes all that waits: 1. What it does not take is the interpreter's, which finds all as it was: 0."""
        return 0

    cpdef object begin(self):
        """The domain is about to sleep: the interpreter may have done anything since the last time."""

    cpdef object settle(self):
        """Tells the interpreter's side what went this way since the last time."""


cdef class Lease:
    """What the interpreter lets go the short way: packets ``of`` a session or a flow, until then. What went by it since
    it was settled last.
    """


cdef class Leasing(Way):
    """A way by leases. ``settled(of, packets, octets, ...)`` is told what went by each of them."""

    def __init__(self, End inward not None, End outward not None, settled):
        self.fd, self.inward, self.outward, self.settled = inward.wait_fd, inward, outward, settled
        self.leases = []

    cdef int keep(self, Lease lease) except -1:
        """In place of what was leased of the same before."""
        kept = [one for one in self.leases if (<Lease> one).of is not lease.of]
        self.leases = [*kept, lease] if len(kept) < LEASES else [lease]
        return 0

    def revoke(self):
        """What was leased holds no more."""
        self.leases = []

    cdef int passed(
        self, Lease lease, Py_ssize_t octets, Py_ssize_t length, const uint8_t *out, Py_ssize_t length_out
    ) noexcept:
        """The message of ``length`` bytes that waited goes on as ``out``, by ``lease``, where it counts as ``octets``."""
        self.outward.put(out, length_out)
        self.inward.took(length)
        lease.packets += 1
        lease.octets += octets
        self.used = True
        return 1

    cpdef object settle(self):
        cdef Lease lease
        for lease in self.leases:
            if lease.packets:
                packets, octets = lease.packets, lease.octets
                lease.packets = lease.octets = 0
                self.account(lease, packets, octets)

    cdef int account(self, Lease lease, packets, octets) except -1:
        self.settled(lease.of, packets, octets)
        return 0


cdef class Ways:
    """The ways of a domain that sleeps on the descriptor ``epoll``."""

    def __init__(self, int epoll):
        self.epoll = epoll
        self.ways = []
        self.by_fd = [None] * MOST_FD

    def add(self, Way way not None):
        """Errors: IndexError for a descriptor that no domain has."""
        if not 0 <= way.fd < MOST_FD:
            raise IndexError(f"descriptor {way.fd}")
        self.ways.append(way)
        self.by_fd[way.fd] = way

    def wait(self, double seconds):
        """Sleeps for so long at most, and until the interpreter is needed; the events that it is needed for, as of
        ``select.epoll.poll``.
        """
        cdef epoll_event events[EVENTS]
        cdef double now = monotonic()
        cdef double until = now + seconds
        cdef int count, i, fd
        cdef list left
        cdef object way
        for way in self.ways:
            (<Way> way).begin()
        while True:
            # Rounded up, or the last millisecond would be spent awake
            count = _sleep(self.epoll, events, <int> (max(0.0, until - now) * 1000 + 0.999))
            now = monotonic()
            left = None
            for i in range(count):
                fd = events[i].data.fd
                way = self.by_fd[fd] if 0 <= fd < MOST_FD else None
                # What comes behind something that is the interpreter's must not overtake it
                if left is not None or way is None or (<Way> way).go(now) != 1:
                    if left is None:
                        left = []
                    left.append((fd, events[i].events))
            if left is not None:
                return self.settled(left)
            if count <= 0 or now >= until:
                return self.settled([])

    cdef object settled(self, object events):
        cdef Way way
        for way in self.ways:
            if way.used:
                way.used = False
                way.settle()
        return events


cdef int _sleep(int epoll, epoll_event *events, int milliseconds) except -1:
    """Errors: OSError. A signal ends the sleep."""
    cdef int count
    with nogil:
        count = epoll_wait(epoll, events, EVENTS, milliseconds)
    if count < 0:
        if errno == EINTR:
            return 0
        raise OSError(errno, "epoll_wait")
    return count
