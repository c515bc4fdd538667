# cython: language_level=3, boundscheck=True, wraparound=False
"""The short way through the end of a channel: one message that waits alone, without the interpreter.

After a sleep an interpreter is cold: a lone packet costs it thousands of cache lines a domain, whatever it does with
them. Here is what is plainly right, and nothing else: the one whole frame that waits in an open session, of at most MOST
bytes and with the serial that is due, whose message is flat and carries one packet. All else is declined with nothing
consumed and nothing changed, and so is as ring.py, endpoint.py and codec.py find it, which have the rules.

The peer's memory is read as it is there: each index and each byte that is decided by once, into a variable or a buffer
of our own, by an atomic load or a copy whose bounds were checked; no pointer into it outlives the line that takes it,
and nothing of it outlives a refusal: who looks next looks for himself.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from appliance.vchan import layout

cdef extern from *:
    """
    #include <stdint.h>
    #include <unistd.h>
    static inline uint32_t septum_load32(const uint8_t *at) { return __atomic_load_n((const uint32_t *) at, __ATOMIC_ACQUIRE); }
    static inline void septum_store32(uint8_t *at, uint32_t value) { __atomic_store_n((uint32_t *) at, value, __ATOMIC_RELEASE); }
    static inline uint8_t septum_load8(const uint8_t *at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
    static inline void septum_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    static inline void septum_notify(int fd) { uint64_t one = 1; ssize_t done = write(fd, &one, sizeof one); (void) done; }
    """
    uint32_t septum_load32(const uint8_t *at) nogil
    void septum_store32(uint8_t *at, uint32_t value) nogil
    uint8_t septum_load8(const uint8_t *at) nogil
    void septum_fence() nogil
    void septum_notify(int fd) nogil

cdef uint8_t LIVE = layout.LIVE
cdef uint8_t NOTIFY_READ = layout.NOTIFY_READ
cdef uint8_t NOTIFY_WRITE = layout.NOTIFY_WRITE


cdef class Indices:
    """What a Vchan counts, where the short way can reach it: ring.py says what it means."""


cdef class Serials:
    """The same of an Endpoint: endpoint.py."""


cdef class End:
    """The short way through ``endpoint``, a stream's over a process' wire, which is woken by ``notify_fd``.

    Errors: ValueError if the shared memory is not as layout.py has it.
    """

    def __init__(self, endpoint, int wait_fd, int notify_fd):
        ring = endpoint._vchan
        self.ring, self.serials = ring, endpoint
        self.shared, self.inward, self.outward = ring._shared, ring._in, ring._out
        self.cons, self.prod = 4 * ring._cons_word, 4 * ring._prod_word
        self.peer_cons, self.peer_prod = 4 * ring._peer_cons_word, 4 * ring._peer_prod_word
        self.peer_live, self.peer_wants = ring._peer_live, ring._peer_wants
        self.wait_fd, self.notify_fd = wait_fd, notify_fd
        if self.shared.shape[0] < layout.GRANTS or not ring._in_size == self.inward.shape[0] <= 1 << 30 or (
            not ring._out_size == self.outward.shape[0] <= 1 << 30
        ):
            raise ValueError("a vchan whose rings are not of the sizes it says")

    cdef bint is_open(self) noexcept:
        return self.ring._is_up and septum_load8(&self.shared[self.peer_live]) == LIVE

    # reading

    cdef Py_ssize_t peek(self, uint8_t *into, Py_ssize_t room) noexcept:
        """Copies the message that waits alone to ``into``, if it has room for it: its length. 0: declined."""
        cdef uint32_t size = <uint32_t> self.inward.shape[0]
        cdef uint32_t cons = self.ring._cons
        cdef uint32_t ready
        cdef uint32_t field[2]
        if not self.is_open() or self.ring._is_partial:
            return 0
        ready = septum_load32(&self.shared[self.peer_prod]) - cons
        if ready <= FRAME or ready > size or ready > FRAME + room:
            return 0
        self.ring._seen_prod = cons + ready
        self.copy(<uint8_t *> field, cons, FRAME)
        if field[0] != ready - FRAME or field[1] != self.serials._next_in:
            return 0
        self.copy(into, cons + FRAME, ready - FRAME)
        return ready - FRAME

    cdef void copy(self, uint8_t *into, uint32_t start, uint32_t count) noexcept:
        """``count`` bytes of what waits, no more than the ring has."""
        cdef uint32_t size = <uint32_t> self.inward.shape[0]
        cdef uint32_t at = start & (size - 1)
        cdef uint32_t here = min(count, size - at)
        memcpy(into, &self.inward[at], here)
        if here < count:
            memcpy(into + here, &self.inward[0], count - here)

    cdef void took(self, Py_ssize_t length) noexcept:
        """The message that ``peek`` found is used up: the peer has its place back."""
        self.ring._cons += <uint32_t> (FRAME + length)
        septum_store32(&self.shared[self.cons], self.ring._cons)
        self.serials._next_in += 1
        self.serials._received += 1
        self.serials._received_bytes += length
        self.notify(NOTIFY_READ)

    # writing

    cdef bint fits(self, Py_ssize_t length) noexcept:
        """Whether a message of ``length`` bytes goes out now; False as well for a peer that is none."""
        cdef uint32_t size = <uint32_t> self.outward.shape[0]
        cdef uint32_t used
        if not self.is_open() or not 0 < length <= MOST:
            return False
        used = self.ring._prod - septum_load32(&self.shared[self.peer_cons])
        if used > size:
            return False
        self.ring._seen_cons = self.ring._prod - used
        return size - used >= FRAME + length

    cdef void put(self, const uint8_t *message, Py_ssize_t length) noexcept:
        """Sends a message that ``fits``, and wakes the peer if it sleeps."""
        cdef uint32_t field[2]
        field[0] = <uint32_t> length
        field[1] = self.serials._next_out
        self.lay(self.ring._prod, <const uint8_t *> field, FRAME)
        self.lay(self.ring._prod + FRAME, message, <uint32_t> length)
        self.ring._prod += <uint32_t> (FRAME + length)
        septum_store32(&self.shared[self.prod], self.ring._prod)
        self.serials._next_out += 1
        self.serials._sent += 1
        self.serials._sent_bytes += length
        self.notify(NOTIFY_WRITE)

    cdef void lay(self, uint32_t start, const uint8_t *data, uint32_t count) noexcept:
        cdef uint32_t size = <uint32_t> self.outward.shape[0]
        cdef uint32_t at = start & (size - 1)
        cdef uint32_t here = min(count, size - at)
        memcpy(&self.outward[at], data, here)
        if here < count:
            memcpy(&self.outward[0], data + here, count - here)

    cdef void notify(self, uint8_t bits) noexcept:
        """Wakes the peer if it asked for one of ``bits``."""
        septum_fence()
        if septum_load8(&self.shared[self.peer_wants]) & bits:
            septum_notify(self.notify_fd)


cdef class Quick(End):
    """The quick way of whole messages, not only lone ones, through ``endpoint``, a stream's, for an interpreter that is
    awake: what Endpoint's ``receive``, ``send`` and ``room`` do where all is plain. ``coming`` and ``going``: the flat
    codecs (codec.py) of either direction, None for none.

    The fields behind a blob it takes only as they were before: what the codec has checked and remembers.
    """

    def __init__(self, endpoint, coming, going):
        End.__init__(self, endpoint, -1, -1)
        if (coming is None) == (going is None) or (coming or going).tag_of_blob != b"\x0a" or (coming or going).high > 65535:
            raise ValueError("the quick way is for one direction, of a blob that is field 1 and of 65535 bytes at most")
        if coming is not None:
            self.coming, self.values, self.largest_in = coming.flat, coming.values, coming.most
            self.low, self.high = coming.low, coming.high
        if going is not None:
            self.going, self.tails, self.largest_out = going.flat, going.tails, going.most
            self.low, self.high = going.low, going.high

    def receive(self):
        """The next message, whole and plainly right; None: declined, with nothing consumed."""
        cdef uint32_t size = <uint32_t> self.inward.shape[0]
        cdef uint32_t cons = self.ring._cons
        cdef uint32_t ready, blob
        cdef uint32_t field[2]
        cdef Py_ssize_t length, start, stop, more
        cdef bytes untrusted
        cdef const uint8_t *data
        if self.coming is None or not self.ring._is_up or self.ring._is_partial:
            return None
        ready = septum_load32(&self.shared[self.peer_prod]) - cons
        if ready <= FRAME or ready > size:
            return None
        self.copy(<uint8_t *> field, cons, FRAME)
        if field[0] > ready - FRAME or field[0] > self.largest_in or field[0] < 2 or field[1] != self.serials._next_in:
            return None
        length = field[0]
        untrusted = PyBytes_FromStringAndSize(NULL, length)
        data = <const uint8_t *> PyBytes_AS_STRING(untrusted)
        self.copy(<uint8_t *> data, cons + FRAME, field[0])
        if data[0] != 0x0A:  # field 1, bytes
            return None
        more = varint(data + 1, length - 1, &blob)
        start = 1 + more
        if not more or not self.low <= blob <= self.high or blob > length - start:
            return None
        stop = start + blob
        values = self.values.get(untrusted[stop:])
        if values is None:
            return None
        message = tuple.__new__(self.coming, (memoryview(untrusted)[start:stop], *values))
        self.ring._seen_prod = cons + ready
        self.ring._cons = cons + FRAME + field[0]
        septum_store32(&self.shared[self.cons], self.ring._cons)
        self.serials._next_in += 1
        self.serials._received += 1
        self.serials._received_bytes += length
        return message

    cdef uint32_t free(self) noexcept:
        """Bytes of the ring that can be written; 0 as well for a peer that is none."""
        cdef uint32_t size = <uint32_t> self.outward.shape[0]
        cdef uint32_t used
        if not self.ring._is_up:
            return 0
        used = self.ring._prod - septum_load32(&self.shared[self.peer_cons])
        if used > size:
            return 0
        self.ring._seen_cons = self.ring._prod - used
        return size - used

    def room(self):
        """Whether a message of the largest size would be sent now; False: or that is not plain."""
        return self.going is not None and self.free() >= FRAME + self.largest_out

    def send(self, message):
        """Whether it was sent, but for waking the peer; False: declined, with nothing written."""
        cdef Py_buffer blob
        cdef bytes tail
        cdef uint8_t head_[4]
        cdef uint32_t field[2]
        cdef uint32_t room, prod
        cdef Py_ssize_t before, total
        if self.going is None or type(message) is not self.going:
            return False
        tail = self.tails.get(message[1:])
        room = self.free()
        if tail is None or not room:
            return False
        try:
            PyObject_GetBuffer(message[0], &blob, PyBUF_SIMPLE)
        except (BufferError, TypeError):
            return False
        try:
            if not blob.len or not self.low <= blob.len <= self.high:
                return False
            before = head(head_, blob.len)
            total = before + blob.len + len(tail)
            if room < FRAME + total:
                return False
            field[0], field[1] = <uint32_t> total, self.serials._next_out
            prod = self.ring._prod
            self.lay(prod, <const uint8_t *> field, FRAME)
            prod += FRAME
            self.lay(prod, head_, <uint32_t> before)
            prod += <uint32_t> before
            self.lay(prod, <const uint8_t *> blob.buf, <uint32_t> blob.len)
            prod += <uint32_t> blob.len
            self.lay(prod, <const uint8_t *> PyBytes_AS_STRING(tail), <uint32_t> len(tail))
            prod += <uint32_t> len(tail)
        finally:
            PyBuffer_Release(&blob)
        self.ring._prod = prod
        septum_store32(&self.shared[self.prod], prod)
        self.serials._next_out += 1
        self.serials._sent += 1
        self.serials._sent_bytes += total
        return True


# Flat messages of one packet: the same bytes as codec.py's -----------------------------------------------------------


cdef Py_ssize_t varint(const uint8_t *data, Py_ssize_t left, uint32_t *value) noexcept:
    """Bytes of the shortest varint of 1 to 65535 at ``data``; 0 if there is none."""
    cdef uint32_t found
    if left < 1:
        return 0
    if data[0] < 0x80:
        value[0] = data[0]
        return 1 if data[0] else 0
    if left < 2:
        return 0
    found = data[0] & 0x7F | <uint32_t> (data[1] & 0x7F) << 7
    if data[1] < 0x80:
        value[0] = found
        return 2 if data[1] else 0
    if left < 3 or not 0 < data[2] < 4:
        return 0
    value[0] = found | <uint32_t> data[2] << 14
    return 3


cdef Py_ssize_t put_varint(uint8_t *out, uint32_t value) noexcept:
    if value < 0x80:
        out[0] = value
        return 1
    out[0] = value & 0x7F | 0x80
    if value < 0x4000:
        out[1] = value >> 7
        return 2
    out[1] = value >> 7 & 0x7F | 0x80
    out[2] = value >> 14
    return 3


cdef Py_ssize_t lone(const uint8_t *message, Py_ssize_t length, Lone *found) noexcept:
    """Where the fields behind a blob and its size begin, which is the blob's: one packet, one datagram. 0: declined."""
    cdef uint32_t value = 0
    cdef Py_ssize_t at, more
    if length < 1 or message[0] != 0x0A:  # field 1, bytes
        return 0
    more = varint(message + 1, length - 1, &value)
    at = 1 + more
    if not more or value > length - at:
        return 0
    found.at, found.length = at, value
    at += value
    if at >= length or message[at] != 0x10:  # field 2, varint
        return 0
    more = varint(message + at + 1, length - at - 1, &value)
    return at + 1 + more if more and value == found.length else 0


cdef bint read_packets(const uint8_t *message, Py_ssize_t length, Lone *found) noexcept:
    """Packets of one packet, of 20 bytes or more."""
    cdef Py_ssize_t more
    cdef Py_ssize_t at = lone(message, length, found)
    if not at or found.length < 20:
        return False
    found.peer = 0
    if at == length:
        return True
    if message[at] != 0x18:  # field 3, varint
        return False
    more = varint(message + at + 1, length - at - 1, &found.peer)
    return more != 0 and at + 1 + more == length


cdef bint read_datagrams(const uint8_t *message, Py_ssize_t length, Lone *found) noexcept:
    """Datagrams of one datagram, of 32 bytes or more, of an address of either family."""
    cdef Py_ssize_t more
    cdef Py_ssize_t at = lone(message, length, found)
    if not at or found.length < 32 or length - at < 2 or message[at] != 0x1A:  # field 3, bytes
        return False
    found.address_bytes = message[at + 1]
    found.address = message + at + 2
    at += 2 + found.address_bytes
    if found.address_bytes not in (4, 16) or at >= length or message[at] != 0x20:  # field 4, varint
        return False
    more = varint(message + at + 1, length - at - 1, &found.port)
    return more != 0 and at + 1 + more == length


cdef Py_ssize_t head(uint8_t *out, Py_ssize_t length) noexcept:
    """What stands before a blob of ``length`` bytes: at most 4 bytes."""
    out[0] = 0x0A
    return 1 + put_varint(out + 1, <uint32_t> length)


cdef Py_ssize_t packets_tail(uint8_t *out, Py_ssize_t length, uint32_t peer) noexcept:
    """What stands behind it in Packets: at most 8 bytes."""
    cdef Py_ssize_t at = 1
    out[0] = 0x10
    at += put_varint(out + at, <uint32_t> length)
    if peer:
        out[at] = 0x18
        at += 1 + put_varint(out + at + 1, peer)
    return at


cdef Py_ssize_t datagrams_tail(
    uint8_t *out, Py_ssize_t length, const uint8_t *address, Py_ssize_t address_bytes, uint32_t port
) noexcept:
    """What stands behind it in Datagrams, of an address of 4 or 16 bytes and a port of 1 to 65535: at most 26 bytes."""
    cdef Py_ssize_t at = 1
    out[0] = 0x10
    at += put_varint(out + at, <uint32_t> length)
    out[at] = 0x1A
    out[at + 1] = <uint8_t> address_bytes
    memcpy(out + at + 2, address, address_bytes)
    at += 2 + address_bytes
    out[at] = 0x20
    return at + 1 + put_varint(out + at + 1, port)
