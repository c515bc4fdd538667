from libc.stdint cimport uint8_t, uint64_t

from appliance.vchan.short cimport MOST, End

cdef class Tally:
    cdef uint64_t[::1] words
    cdef Py_ssize_t index
    cdef void add(self, uint64_t count) noexcept

cdef class Way:
    cdef readonly int fd
    cdef bint used
    cdef int go(self, double now) except -1
    cpdef object begin(self)
    cpdef object settle(self)

cdef class Lease:
    cdef object of
    cdef double until
    cdef uint64_t packets
    cdef uint64_t octets

cdef class Leasing(Way):
    cdef End inward
    cdef End outward
    cdef list leases
    cdef object settled
    cdef uint8_t message[MOST]
    cdef uint8_t out[MOST]
    cdef int keep(self, Lease lease) except -1
    cdef int passed(
        self, Lease lease, Py_ssize_t octets, Py_ssize_t length, const uint8_t *out, Py_ssize_t length_out
    ) noexcept
    cdef int account(self, Lease lease, packets, octets) except -1

cdef class Ways:
    cdef int epoll
    cdef list ways
    cdef list by_fd
    cdef object settled(self, object events)
