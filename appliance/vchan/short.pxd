from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    MOST = 2048  # bytes of a message that goes the short way
    FRAME = 8

cdef class Indices:
    cdef public uint32_t _cons
    cdef public uint32_t _prod
    cdef public uint32_t _seen_cons
    cdef public uint32_t _seen_prod
    cdef public bint _is_up
    cdef public bint _is_partial

cdef class Serials:
    cdef public uint32_t _next_in
    cdef public uint32_t _next_out
    cdef public uint64_t _sent
    cdef public uint64_t _received
    cdef public uint64_t _sent_bytes
    cdef public uint64_t _received_bytes

cdef class End:
    cdef Indices ring
    cdef Serials serials
    cdef uint8_t[::1] shared
    cdef uint8_t[::1] inward
    cdef uint8_t[::1] outward
    cdef Py_ssize_t cons
    cdef Py_ssize_t prod
    cdef Py_ssize_t peer_cons
    cdef Py_ssize_t peer_prod
    cdef Py_ssize_t peer_live
    cdef Py_ssize_t peer_wants
    cdef readonly int wait_fd
    cdef int notify_fd

    cdef bint is_open(self) noexcept
    cdef void copy(self, uint8_t *into, uint32_t start, uint32_t count) noexcept
    cdef void lay(self, uint32_t start, const uint8_t *data, uint32_t count) noexcept
    cdef Py_ssize_t peek(self, uint8_t *into, Py_ssize_t room) noexcept
    cdef void took(self, Py_ssize_t length) noexcept
    cdef bint fits(self, Py_ssize_t length) noexcept
    cdef void put(self, const uint8_t *message, Py_ssize_t length) noexcept
    cdef void notify(self, uint8_t bits) noexcept

cdef class Quick(End):
    cdef object coming
    cdef object going
    cdef dict values
    cdef dict tails
    cdef Py_ssize_t largest_in
    cdef Py_ssize_t largest_out
    cdef Py_ssize_t low
    cdef Py_ssize_t high

    cdef uint32_t free(self) noexcept

cdef struct Lone:
    # A flat message of one packet: its blob lies from `at` on, `length` bytes
    Py_ssize_t at
    Py_ssize_t length
    uint32_t peer
    const uint8_t *address
    Py_ssize_t address_bytes
    uint32_t port

cdef bint read_packets(const uint8_t *message, Py_ssize_t length, Lone *lone) noexcept
cdef bint read_datagrams(const uint8_t *message, Py_ssize_t length, Lone *lone) noexcept
cdef Py_ssize_t head(uint8_t *out, Py_ssize_t length) noexcept
cdef Py_ssize_t packets_tail(uint8_t *out, Py_ssize_t length, uint32_t peer) noexcept
cdef Py_ssize_t datagrams_tail(
    uint8_t *out, Py_ssize_t length, const uint8_t *address, Py_ssize_t address_bytes, uint32_t port
) noexcept
