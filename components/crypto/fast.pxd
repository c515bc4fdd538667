from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_CIPHER_CTX:
        pass

cdef class Sealer:
    cdef EVP_CIPHER_CTX *context
    cdef public uint64_t counter

    cdef bint one(
        self,
        const uint8_t *packet,
        Py_ssize_t size,
        Py_ssize_t padding,
        uint32_t receiver,
        uint64_t counter,
        uint8_t *datagram,
    ) noexcept

cdef class Opener:
    cdef EVP_CIPHER_CTX *context

    cdef bint begin(self, const uint8_t *datagram, Py_ssize_t plain, uint64_t counter) noexcept
    cdef bint one(self, const uint8_t *datagram, Py_ssize_t plain, uint8_t *packet) noexcept
