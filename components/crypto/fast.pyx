# cython: language_level=3, boundscheck=True, wraparound=False
"""The compiled twin of loops.py: the same functions, the same bytes, at a third of the time.

The cipher is OpenSSL's, called by its EVP interface (EVP_EncryptInit(3)) without a Python object a packet. Every range
is checked before a pointer into it is taken, and none is kept. All buffers belong to this process: what a peer may
still change was copied before it comes here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "openssl/crypto.h" nogil:
    int OPENSSL_INIT_NO_LOAD_CONFIG
    int OPENSSL_init_crypto(uint64_t options, const void *settings)

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct ENGINE:
        pass
    int EVP_CTRL_AEAD_GET_TAG
    int EVP_CTRL_AEAD_SET_TAG
    EVP_CIPHER *EVP_CIPHER_fetch(void *library, const char *algorithm, const char *properties)
    EVP_CIPHER_CTX *EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *context)
    int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *context, int what, int size, void *data)
    int EVP_EncryptInit_ex(EVP_CIPHER_CTX *c, const EVP_CIPHER *k, ENGINE *e, const uint8_t *key, const uint8_t *iv)
    int EVP_EncryptUpdate(EVP_CIPHER_CTX *context, uint8_t *out, int *size, const uint8_t *data, int length)
    int EVP_EncryptFinal_ex(EVP_CIPHER_CTX *context, uint8_t *out, int *size)
    int EVP_DecryptInit_ex(EVP_CIPHER_CTX *c, const EVP_CIPHER *k, ENGINE *e, const uint8_t *key, const uint8_t *iv)
    int EVP_DecryptUpdate(EVP_CIPHER_CTX *context, uint8_t *out, int *size, const uint8_t *data, int length)
    int EVP_DecryptFinal_ex(EVP_CIPHER_CTX *context, uint8_t *out, int *size)

cdef enum:
    TRANSPORT_DATA = 4
    HEADER = 16
    TAG = 16
    OVERHEAD = 32
    NONCE = 12
    KEY = 32
    MOST = 65536  # bytes: of one packet or datagram

# Fetched once, at import: a sealed domain can open nothing. The host's openssl.cnf is not asked.
OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL)
cdef EVP_CIPHER *CIPHER = EVP_CIPHER_fetch(NULL, b"ChaCha20-Poly1305", NULL)
if CIPHER == NULL:
    raise ImportError("this OpenSSL has no ChaCha20-Poly1305")


cdef int _check(Py_ssize_t start, Py_ssize_t length, Py_ssize_t bytes_) except -1:
    """Errors: IndexError unless ``length`` bytes from ``start`` on lie within ``bytes_``."""
    if start < 0 or length < 0 or length > bytes_ or start > bytes_ - length:
        raise IndexError(f"{length} bytes at {start} of {bytes_}")
    return 0


cdef int _check_run(Py_ssize_t start, Py_ssize_t size, Py_ssize_t count, Py_ssize_t bytes_) except -1:
    if not (0 <= size <= MOST and 0 < count <= MOST):
        raise IndexError(f"{count} items of {size} bytes")
    return _check(start, size * count, bytes_)


cdef int _check_counters(uint64_t counter, Py_ssize_t count) except -1:
    if counter > UINT64_MAX - <uint64_t> (count - 1):
        raise ValueError(f"{count} counters from {counter} on")
    return 0


# Fields, little-endian whatever the machine --------------------------------------------------------------------------


cdef void _put(uint8_t *out, uint64_t value, int bytes_) noexcept:
    cdef int i
    for i in range(bytes_):
        out[i] = value >> (8 * i) & 0xFF


cdef uint64_t _get(const uint8_t *data, int bytes_) noexcept:
    cdef uint64_t value = 0
    cdef int i
    for i in range(bytes_):
        value |= <uint64_t> data[i] << (8 * i)
    return value


cdef void _nonce(uint8_t *nonce, uint64_t counter) noexcept:
    """RFC 8439 section 2.3: 32 bits of zeros and the counter."""
    memset(nonce, 0, 4)
    _put(nonce + 4, counter, 8)


# The loops -----------------------------------------------------------------------------------------------------------


cdef class Sealer:
    """See loops.py. The key is in OpenSSL's context, which is cleared when it is freed."""

    def __cinit__(self, const uint8_t[::1] key not None):
        if key.shape[0] != KEY:
            raise ValueError(f"a key of {key.shape[0]} bytes")
        self.context = EVP_CIPHER_CTX_new()
        if self.context == NULL or EVP_EncryptInit_ex(self.context, CIPHER, NULL, &key[0], NULL) != 1:
            raise MemoryError("OpenSSL takes no key")

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.context)

    def seal(
        self,
        const uint8_t[::1] packets not None,
        Py_ssize_t start,
        Py_ssize_t size,
        Py_ssize_t count,
        Py_ssize_t padding,
        uint32_t receiver,
        uint64_t counter,
        uint8_t[::1] out not None,
        Py_ssize_t to,
    ):
        """See loops.py."""
        cdef Py_ssize_t padded
        cdef Py_ssize_t i
        if not 0 <= padding <= 15:
            raise ValueError(f"padding of {padding} bytes")
        _check_run(start, size, count, packets.shape[0])
        padded = size + padding
        _check_run(to, padded + OVERHEAD, count, out.shape[0])
        _check_counters(counter, count)
        for i in range(count):
            if not self.one(&packets[start] if size else NULL, size, padding, receiver, counter, &out[to]):
                raise RuntimeError("OpenSSL cannot seal")
            start += size
            to += padded + OVERHEAD
            counter += 1

    cdef bint one(
        self,
        const uint8_t *packet,
        Py_ssize_t size,
        Py_ssize_t padding,
        uint32_t receiver,
        uint64_t counter,
        uint8_t *datagram,
    ) noexcept:
        """Lays down one datagram; whoever calls has checked all there is to check."""
        cdef uint8_t zeros[16]
        cdef uint8_t nonce[NONCE]
        cdef Py_ssize_t padded = size + padding
        cdef int length = 0
        cdef int rest = 0
        cdef int last = 0
        memset(zeros, 0, 16)
        _put(datagram, TRANSPORT_DATA, 4)
        _put(datagram + 4, receiver, 4)
        _put(datagram + 8, counter, 8)
        _nonce(nonce, counter)
        return (
            EVP_EncryptInit_ex(self.context, NULL, NULL, NULL, nonce) == 1
            and (size == 0 or EVP_EncryptUpdate(self.context, datagram + HEADER, &length, packet, <int> size) == 1)
            and (
                padding == 0
                or EVP_EncryptUpdate(self.context, datagram + HEADER + length, &rest, zeros, <int> padding) == 1
            )
            and EVP_EncryptFinal_ex(self.context, datagram + HEADER + length + rest, &last) == 1
            and length + rest + last == padded
            and EVP_CIPHER_CTX_ctrl(self.context, EVP_CTRL_AEAD_GET_TAG, TAG, datagram + HEADER + padded) == 1
        )


cdef class Opener:
    """See loops.py; as ``Sealer``."""

    def __cinit__(self, const uint8_t[::1] key not None):
        if key.shape[0] != KEY:
            raise ValueError(f"a key of {key.shape[0]} bytes")
        self.context = EVP_CIPHER_CTX_new()
        if self.context == NULL or EVP_DecryptInit_ex(self.context, CIPHER, NULL, &key[0], NULL) != 1:
            raise MemoryError("OpenSSL takes no key")

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.context)

    def open(
        self,
        const uint8_t[::1] untrusted not None,
        Py_ssize_t start,
        Py_ssize_t size,
        Py_ssize_t count,
        uint64_t counter,
        uint8_t[::1] out not None,
        Py_ssize_t to,
    ):
        """See loops.py."""
        cdef Py_ssize_t plain
        cdef Py_ssize_t i
        cdef uint8_t nowhere[1]
        _check_run(start, size, count, untrusted.shape[0])
        plain = size - OVERHEAD
        _check_run(to, plain, count, out.shape[0])
        _check_counters(counter, count)
        cdef bytes result = PyBytes_FromStringAndSize(NULL, count)
        cdef uint8_t *authentic = <uint8_t *> PyBytes_AS_STRING(result)
        for i in range(count):
            if not self.begin(&untrusted[start], plain, counter):
                raise RuntimeError("OpenSSL cannot open")
            authentic[i] = self.one(&untrusted[start], plain, &out[to] if plain else nowhere)
            start += size
            if authentic[i]:
                to += plain
            counter += 1
        return result

    cdef bint begin(self, const uint8_t *datagram, Py_ssize_t plain, uint64_t counter) noexcept:
        """Gives the cipher the nonce and the tag of one datagram. False: OpenSSL is out of order."""
        cdef uint8_t nonce[NONCE]
        cdef uint8_t tag[TAG]
        memcpy(tag, datagram + HEADER + plain, TAG)
        _nonce(nonce, counter)
        return (
            EVP_DecryptInit_ex(self.context, NULL, NULL, NULL, nonce) == 1
            and EVP_CIPHER_CTX_ctrl(self.context, EVP_CTRL_AEAD_SET_TAG, TAG, tag) == 1
        )

    cdef bint one(self, const uint8_t *datagram, Py_ssize_t plain, uint8_t *packet) noexcept:
        """Opens what was begun; whether it is authentic. What is not is nobody's to see."""
        cdef int length = 0
        cdef int last = 0
        cdef bint authentic = (
            (plain == 0 or EVP_DecryptUpdate(self.context, packet, &length, datagram + HEADER, <int> plain) == 1)
            and EVP_DecryptFinal_ex(self.context, packet + length, &last) == 1
            and length + last == plain
        )
        if plain and not authentic:
            memset(packet, 0, plain)
        return authentic


def succession(const uint8_t[::1] untrusted not None, Py_ssize_t start, Py_ssize_t size, Py_ssize_t most):
    """See loops.py."""
    cdef Py_ssize_t count = 1
    cdef Py_ssize_t at = start
    cdef uint64_t counter
    if size < HEADER:
        raise IndexError(f"datagrams of {size} bytes")
    _check(start, HEADER, untrusted.shape[0])
    counter = _get(&untrusted[start + 8], 8)
    while count < most and size <= untrusted.shape[0] - HEADER - at and counter != UINT64_MAX:
        at += size
        counter += 1
        if memcmp(&untrusted[at], &untrusted[start], 8) != 0 or _get(&untrusted[at + 8], 8) != counter:
            break
        count += 1
    return count


def alike(
    const uint8_t[::1] packets not None,
    Py_ssize_t start,
    Py_ssize_t size,
    Py_ssize_t most,
    Py_ssize_t first,
    Py_ssize_t address,
    Py_ssize_t width,
):
    """See loops.py."""
    cdef Py_ssize_t count = 1
    cdef Py_ssize_t at = start
    if not (0 < first <= size and 0 < width and 0 <= address <= size - width):
        raise IndexError(f"{first} bytes and {width} bytes at {address} in packets of {size}")
    _check(start, size, packets.shape[0])
    while count < most and at <= packets.shape[0] - 2 * size:
        at += size
        if (
            memcmp(&packets[at], &packets[start], first) != 0
            or memcmp(&packets[at + address], &packets[start + address], width) != 0
        ):
            break
        count += 1
    return count
