"""The words of the language that stand for numbers, each in one table."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from components.filter.model import Side, Tracking

PROTOCOLS: Final = MappingProxyType(
    {
        "icmp": 1,
        "igmp": 2,
        "ipip": 4,
        "tcp": 6,
        "udp": 17,
        "gre": 47,
        "esp": 50,
        "ah": 51,
        "icmp6": 58,
        "ospf": 89,
        "pim": 103,
        "vrrp": 112,
        "sctp": 132,
    }
)
"""IANA, Assigned Internet Protocol Numbers."""

SIDES: Final = MappingProxyType({"red": Side.RED, "tunnel": Side.TUNNEL, "black": Side.BLACK})
TRACKING: Final = MappingProxyType(
    {
        "new": Tracking.NEW,
        "established": Tracking.ESTABLISHED,
        "related": Tracking.RELATED,
        "invalid": Tracking.INVALID,
    }
)
VERSIONS: Final = MappingProxyType({"ip4": 4, "ip6": 6})

ICMP: Final = MappingProxyType(
    {
        "echo-reply": (0, None),
        "destination-unreachable": (3, None),
        "network-unreachable": (3, 0),
        "host-unreachable": (3, 1),
        "protocol-unreachable": (3, 2),
        "port-unreachable": (3, 3),
        "fragmentation-needed": (3, 4),
        "administratively-prohibited": (3, 13),
        "redirect": (5, None),
        "echo-request": (8, None),
        "router-advertisement": (9, None),
        "router-solicitation": (10, None),
        "time-exceeded": (11, None),
        "parameter-problem": (12, None),
        "timestamp-request": (13, None),
        "timestamp-reply": (14, None),
    }
)
"""IANA, ICMP Type Numbers: a type, and a code where the word means one."""

ICMP6: Final = MappingProxyType(
    {
        "destination-unreachable": (1, None),
        "no-route": (1, 0),
        "administratively-prohibited": (1, 1),
        "address-unreachable": (1, 3),
        "port-unreachable": (1, 4),
        "packet-too-big": (2, None),
        "time-exceeded": (3, None),
        "parameter-problem": (4, None),
        "echo-request": (128, None),
        "echo-reply": (129, None),
        "listener-query": (130, None),
        "listener-report": (131, None),
        "listener-done": (132, None),
        "router-solicitation": (133, None),
        "router-advertisement": (134, None),
        "neighbour-solicitation": (135, None),
        "neighbour-advertisement": (136, None),
        "redirect": (137, None),
        "listener-report-2": (143, None),
    }
)
"""IANA, ICMPv6 Type Numbers."""

FLAGS: Final = MappingProxyType(
    {"fin": 0x01, "syn": 0x02, "rst": 0x04, "psh": 0x08, "ack": 0x10, "urg": 0x20, "ece": 0x40, "cwr": 0x80}
)
"""RFC 9293 section 3.1."""

SERVICES: Final = MappingProxyType(
    {
        "ftp": 21,
        "ssh": 22,
        "telnet": 23,
        "smtp": 25,
        "dns": 53,
        "dhcp-server": 67,
        "dhcp-client": 68,
        "tftp": 69,
        "http": 80,
        "kerberos": 88,
        "pop3": 110,
        "ntp": 123,
        "imap": 143,
        "snmp": 161,
        "bgp": 179,
        "ldap": 389,
        "https": 443,
        "smb": 445,
        "submissions": 465,
        "ike": 500,
        "syslog": 514,
        "dhcp6-client": 546,
        "dhcp6-server": 547,
        "submission": 587,
        "ipp": 631,
        "ldaps": 636,
        "dot": 853,
        "imaps": 993,
        "pop3s": 995,
        "mqtt": 1883,
        "nfs": 2049,
        "mysql": 3306,
        "rdp": 3389,
        "ike-nat": 4500,
        "sip": 5060,
        "mdns": 5353,
        "postgresql": 5432,
        "wireguard": 51820,
    }
)
"""Ports by name: the same on every machine, whatever its /etc/services says."""

UNITS: Final = MappingProxyType(
    {
        "byte": 1,
        "bytes": 1,
        **{f"{letter}B": 1000**power for letter, power in (("k", 1), ("K", 1), ("M", 2), ("G", 3), ("T", 4))},
        **{f"{letter}iB": 1024**power for letter, power in (("k", 1), ("K", 1), ("M", 2), ("G", 3), ("T", 4))},
    }
)
PERIODS: Final = MappingProxyType({"second": 1, "minute": 60, "hour": 3600, "day": 86400})
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

STP: Final = 0x42  # DSAP of IEEE 802.1D, below any ethertype
ARP: Final = 0x0806
ETHERTYPES: Final = MappingProxyType(
    {
        "wol": 0x0842,
        "mpls": 0x8847,
        "pppoe-discovery": 0x8863,
        "pppoe": 0x8864,
        "eapol": 0x888E,
        "lldp": 0x88CC,
        "macsec": 0x88E5,
        "ptp": 0x88F7,
    }
)
"""IANA, IEEE 802 Numbers."""
OPERATIONS: Final = MappingProxyType({"request": 1, "reply": 2})
"""RFC 826."""

FOREIGN: Final = MappingProxyType(
    {
        "pass": "allow",
        "accept": "allow",
        "permit": "allow",
        "block": "drop",
        "deny": "drop",
        "discard": "drop",
        "rule": "allow, drop or reject",
        "src": "from",
        "saddr": "from",
        "source": "from",
        "dst": "to",
        "daddr": "to",
        "destination": "to",
        "dport": "to port",
        "sport": "from port",
        "inet": "ip4",
        "inet6": "ip6",
        "ipv4": "ip4",
        "ipv6": "ip6",
        "icmpv6": "icmp6",
        "ipv6-icmp": "icmp6",
        "protocol": "proto",
        "icmp-type": "type",
        "state": "new, established, related or invalid, without a word before it",
        "ct": "new, established, related or invalid, without a word before it",
        "keep": "allow established, on a line of its own",
        "table": "set",
        "macro": "set or ports",
        "define": "set or ports",
        "quick": "nothing: the first rule that matches decides always",
        "in": "from red, from tunnel or from black",
        "out": "from red, from tunnel or from black",
        "on": "from red, from tunnel or from black",
        "red": "from red",
        "tunnel": "from tunnel",
        "black": "from black",
        "lan": "red",
        "wan": "black",
        "vpn": "tunnel",
        "rdr": "forward",
        "dnat": "forward",
        "snat": "nat",
        "masquerade": "nat",
        "rate": "limit",
        "schedule": "hours",
        "expires": "until",
        "ether": "ethertype",
        "label": "a name in quotes after the action",
        "all": "any",
    }
)
"""Words of other filters, and what is written here in their place."""
