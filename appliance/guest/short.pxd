from libc.stdint cimport uint64_t

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

cdef class Ways:
    cdef int epoll
    cdef list ways
    cdef list by_fd
    cdef object settled(self, object events)
