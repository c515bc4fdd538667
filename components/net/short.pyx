# cython: language_level=3, boundscheck=True, wraparound=False
"""The short way of a lone packet through `red` and `black`: see appliance/vchan/short.pyx. What it declines is as if it
had not been looked at: a read that came of it is left where the interpreter reads first.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from appliance.guest.short cimport Tally, Way
from appliance.vchan.short cimport (
    MOST, End, Lone, datagrams_tail, head, packets_tail, read_datagrams, read_packets,
)

cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *data, size_t count)

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t readv(int fd, const iovec *vector, int count)

cdef extern from "<netinet/in.h>" nogil:
    ctypedef uint16_t sa_family_t
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct sockaddr_in:
        sa_family_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    cdef struct in6_addr:
        uint8_t s6_addr[16]
    cdef struct sockaddr_in6:
        sa_family_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)
    int AF_INET
    int AF_INET6

cdef extern from "<sys/socket.h>" nogil:
    cdef struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int MSG_TRUNC
    int MSG_CTRUNC
    cmsghdr *CMSG_FIRSTHDR(msghdr *message)
    uint8_t *CMSG_DATA(cmsghdr *header)
    size_t CMSG_LEN(size_t length)

cdef enum:
    VNET = 10  # bytes of a virtio_net_hdr
    NEEDS_CSUM = 1
    SHORTEST = 20  # an IPv4 header
    LONGEST = 1984  # of a blob: with all that stands around it, it is a message of at most MOST bytes
    TRANSPORT_DATA = 4
    TRANSPORT_BYTES = 32
    SOL_UDP = 17
    UDP_GRO = 104


cdef class _Face(Way):
    """What both ends of a face count."""

    cdef End end
    cdef Tally groups
    cdef Tally items
    cdef Tally octets
    cdef uint8_t message[MOST]

    cdef void count(self, Py_ssize_t length) noexcept:
        self.groups.add(1)
        self.items.add(1)
        self.octets.add(length)


# red ------------------------------------------------------------------------------------------------------------------


cdef bint complete(uint8_t *packet, Py_ssize_t length, Py_ssize_t start, Py_ssize_t offset) noexcept:
    """Fills in the checksum of a packet whose checksum field has the pseudo-header's sum (skb_checksum_help). False:
    declined, for headers that are not as they should be.
    """
    cdef Py_ssize_t field = start + offset
    cdef Py_ssize_t at
    cdef uint32_t sum_ = 0
    if not 0 <= start < field or field + 2 > length:
        return False
    if packet[0] >> 4 == 4:
        if start != 4 * (packet[0] & 15) or start < 20 or (<uint32_t> packet[2] << 8 | packet[3]) != length:
            return False
    elif packet[0] >> 4 != 6 or start < 40 or length < 40 or (<uint32_t> packet[4] << 8 | packet[5]) != length - 40:
        return False
    for at in range(start, length - 1, 2):
        sum_ += <uint32_t> packet[at] << 8 | packet[at + 1]
    if (length - start) & 1:
        sum_ += <uint32_t> packet[length - 1] << 8
    sum_ = (sum_ & 0xFFFF) + (sum_ >> 16)
    sum_ = ~((sum_ & 0xFFFF) + (sum_ >> 16)) & 0xFFFF
    if not sum_:
        sum_ = 0xFFFF
    packet[field] = sum_ >> 8
    packet[field + 1] = sum_ & 0xFF
    return True


cdef class FromTun(_Face):
    """What a TUN has to read, as one group, to the filter. ``tun``: its ``buffer`` is read into, and what is declined is
    ``held`` there.
    """

    cdef object tun
    cdef uint8_t[::1] buffer
    cdef Py_ssize_t mtu

    def __init__(self, tun, End end not None, Py_ssize_t mtu, counters):
        self.fd, self.tun, self.buffer, self.end, self.mtu = tun.fd, tun, tun.buffer, end, mtu
        self.groups, self.items, self.octets = map(Tally, counters)

    cdef int go(self, double now) except -1:
        cdef iovec vector
        cdef ssize_t got
        cdef int i
        vector.iov_base, vector.iov_len = &self.buffer[0], self.buffer.shape[0]
        for i in range(2):  # until nothing waits, for the next event is an edge; what follows the first is not alone
            with nogil:
                got = readv(self.fd, &vector, 1)
            if got < 0:
                return errno == EAGAIN
            if i or not self.passes(got):
                self.tun.held = got
                break
        return 0

    cdef bint passes(self, Py_ssize_t got) noexcept:
        cdef uint8_t *packet
        cdef Py_ssize_t length = got - VNET
        cdef Py_ssize_t at
        cdef uint16_t field[2]
        if not SHORTEST <= length <= min(self.mtu, <Py_ssize_t> LONGEST) or got > self.buffer.shape[0]:
            return False
        packet = &self.buffer[VNET]
        if self.buffer[1] or not self.end.fits(LONGEST + 64):
            return False
        memcpy(field, &self.buffer[6], 4)
        if self.buffer[0] & NEEDS_CSUM and not complete(packet, length, field[0], field[1]):
            return False
        at = head(self.message, length)
        memcpy(self.message + at, packet, length)
        at += length
        at += packets_tail(self.message + at, length, 0)
        self.end.put(self.message, at)
        self.count(length)
        return True


cdef class ToTun(_Face):
    """One packet from the filter to the TUN."""

    cdef int tun
    cdef uint8_t out[VNET + MOST]

    def __init__(self, int tun, End end not None, counters):
        self.fd, self.tun, self.end = end.wait_fd, tun, end
        self.groups, self.items, self.octets = map(Tally, counters)
        memset(self.out, 0, VNET)

    cdef int go(self, double now) except -1:
        cdef Lone found
        cdef ssize_t done
        cdef Py_ssize_t length = self.end.peek(self.message, sizeof(self.message))
        if not length or not read_packets(self.message, length, &found):
            return 0
        memcpy(self.out + VNET, self.message + found.at, found.length)
        with nogil:
            done = write(self.tun, self.out, VNET + found.length)
        if done < 0:
            return 0  # nothing was written: the interpreter tries once more, and counts
        self.end.took(length)
        self.count(found.length)
        return 1


# black ----------------------------------------------------------------------------------------------------------------


cdef class ToUdp(_Face):
    """One datagram from encrypt to a socket: ``udp4``, ``udp6``, or -1."""

    cdef int udp4
    cdef int udp6

    def __init__(self, int udp4, int udp6, End end not None, counters):
        self.fd, self.udp4, self.udp6, self.end = end.wait_fd, udp4, udp6, end
        self.groups, self.items, self.octets = map(Tally, counters)

    cdef int go(self, double now) except -1:
        cdef Lone found
        cdef msghdr message
        cdef iovec vector
        cdef sockaddr_in to4
        cdef sockaddr_in6 to6
        cdef ssize_t done
        cdef int udp
        cdef Py_ssize_t length = self.end.peek(self.message, sizeof(self.message))
        if not length or not read_datagrams(self.message, length, &found):
            return 0
        memset(&message, 0, sizeof(message))
        if found.address_bytes == 4:
            udp = self.udp4
            memset(&to4, 0, sizeof(to4))
            to4.sin_family, to4.sin_port = AF_INET, htons(<uint16_t> found.port)
            memcpy(&to4.sin_addr, found.address, 4)
            message.msg_name, message.msg_namelen = &to4, sizeof(to4)
        else:
            udp = self.udp6
            memset(&to6, 0, sizeof(to6))
            to6.sin6_family, to6.sin6_port = AF_INET6, htons(<uint16_t> found.port)
            memcpy(&to6.sin6_addr, found.address, 16)
            message.msg_name, message.msg_namelen = &to6, sizeof(to6)
        if udp < 0:
            return 0
        vector.iov_base, vector.iov_len = self.message + found.at, found.length
        message.msg_iov, message.msg_iovlen = &vector, 1
        with nogil:
            done = sendmsg(udp, &message, 0)
        if done != found.length:
            return 0  # nothing was sent: the interpreter tries once more, and counts
        self.end.took(length)
        self.count(found.length)
        return 1


cdef class FromUdp(_Face):
    """What a socket has to read, as one group, to decrypt: transport data. ``udp``: its ``buffer`` is read into, and
    what is declined is held there.
    """

    cdef object udp
    cdef uint8_t[::1] buffer
    cdef int family

    def __init__(self, udp, End end not None, counters):
        self.fd, self.udp, self.buffer, self.end = udp.fd, udp, udp.buffer, end
        self.family = AF_INET if udp.address_bytes == 4 else AF_INET6
        self.groups, self.items, self.octets = map(Tally, counters)

    cdef int go(self, double now) except -1:
        cdef msghdr message
        cdef iovec vector
        cdef sockaddr_in6 source  # the larger of both
        cdef uint8_t control[64]
        cdef ssize_t got
        cdef int i
        for i in range(2):  # as above
            vector.iov_base, vector.iov_len = &self.buffer[0], min(self.buffer.shape[0], 65535)
            memset(&message, 0, sizeof(message))
            message.msg_name, message.msg_namelen = &source, sizeof(source)
            message.msg_iov, message.msg_iovlen = &vector, 1
            message.msg_control, message.msg_controllen = control, sizeof(control)
            with nogil:
                got = recvmsg(self.fd, &message, 0)
            if got < 0:
                if errno == EAGAIN:
                    return 1
                if errno == EINTR:
                    return 0
                self.udp.hold_loss(errno)  # about an earlier datagram, told once
                return 0
            if i or not self.passes(got, &message, &source):
                self.hold(got, &message, &source)
                break
        return 0

    cdef Py_ssize_t segment(self, Py_ssize_t got, msghdr *message) noexcept:
        """Bytes of each datagram but the last."""
        cdef cmsghdr *header = CMSG_FIRSTHDR(message)
        cdef int size
        if header == NULL or header.cmsg_level != SOL_UDP or header.cmsg_type != UDP_GRO or header.cmsg_len < CMSG_LEN(4):
            return got
        memcpy(&size, CMSG_DATA(header), 4)
        return min(got, <Py_ssize_t> size) if size > 0 else got

    cdef bint passes(self, Py_ssize_t got, msghdr *message, sockaddr_in6 *source) noexcept:
        cdef Py_ssize_t at
        cdef const uint8_t *address
        cdef uint32_t port = ntohs(source.sin6_port)  # where sockaddr_in has it too
        if message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) or not TRANSPORT_BYTES <= got <= LONGEST:
            return False
        if source.sin6_family != self.family or not port or self.segment(got, message) != got:
            return False
        if self.buffer[0] != TRANSPORT_DATA or not self.end.fits(LONGEST + 64):
            return False
        if self.family == AF_INET:
            address = <const uint8_t *> &(<sockaddr_in *> source).sin_addr
        else:
            address = source.sin6_addr.s6_addr
        at = head(self.message, got)
        memcpy(self.message + at, &self.buffer[0], got)
        at += got
        at += datagrams_tail(self.message + at, got, address, 4 if self.family == AF_INET else 16, port)
        self.end.put(self.message, at)
        self.count(got)
        return True

    cdef object hold(self, Py_ssize_t got, msghdr *message, sockaddr_in6 *source):
        cdef const uint8_t *address
        if message.msg_flags & MSG_TRUNC:
            self.udp.hold_loss()
            return
        if self.family == AF_INET:
            address = <const uint8_t *> &(<sockaddr_in *> source).sin_addr
            told = address[:4]
        else:
            address = source.sin6_addr.s6_addr
            told = address[:16]
        self.udp.hold(got, self.segment(got, message), told, ntohs(source.sin6_port))
