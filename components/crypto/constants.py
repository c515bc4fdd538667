"""The numbers of WireGuard's transport data, in one table.

Source: J. Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", sections 5.4.6 and 6.1; the sizes of queues
and windows are those of the Linux implementation.
"""

from struct import Struct
from typing import Final

# Section 5.4.6: type 4, three reserved zero bytes, receiver index, 64-bit counter; all little-endian
TRANSPORT_DATA: Final = 4
HEADER: Final = Struct("<IIQ")
HEADER_BYTES: Final = 16
TAG_BYTES: Final = 16
OVERHEAD: Final = HEADER_BYTES + TAG_BYTES
# RFC 8439 section 2.8: a 96-bit nonce, here 32 bits of zeros and the counter
NONCE: Final = Struct("<4xQ")
KEY_BYTES: Final = 32
PADDING: Final = 16

# Section 6.1
REJECT_AFTER_TIME: Final = 180.0  # seconds
REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1

# RFC 6479; the ring is a power of two, the window 64 less, as in Linux
WINDOW_RING: Final = 8192
WINDOW: Final = WINDOW_RING - 64

# What waits for a session
STAGED_PACKETS: Final = 128  # for one peer
STAGED_BYTES: Final = 256 * 1024  # for one peer
STAGED_BYTES_IN_ALL: Final = 32 * 1024 * 1024

# One call of the kernel takes at most UDP_MAX_SEGMENTS segments and one IP datagram's worth of bytes
GROUP_ITEMS: Final = 64
GROUP_DATAGRAM_BYTES: Final = 65_000
GROUP_PACKET_BYTES: Final = 65_535

# What one key domain may make another remember: all of it at once fits the memory that component.toml gives. A session
# takes 4 KiB, its window a quarter of it; a peer has three at most, and keymgr's MAX_PEERS is a third of them
MOST_PREFIXES: Final = 65_536
MOST_SESSIONS: Final = 49_152
REMEMBERED_SESSIONS: Final = 65_536

# All reports but first and urgent ones wait for the next of REPORT_TICKS a second, and where more than REPORT_CROWD do,
# up to REPORT_STRETCH times as long, which keymgr's REPORT_LAG allows for: of a thousand peers that are active at once
# it hears in a few long turns instead of thousands of short ones
REPORT_INTERVAL: Final = 0.25  # seconds between two reports of one peer or session
REPORT_TICKS: Final = 16  # a second
REPORT_CROWD: Final = 256
REPORT_STRETCH: Final = 3.0
URGENT_INTERVAL: Final = 0.02  # between two reports of a peer whose endpoint keeps changing
