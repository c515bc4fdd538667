"""What one word means: addresses, ports, flags, dates. Each raises ValueError with the end of a sentence."""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from appliance.rules import words
from components.filter.model import Flags, Hours, Prefix, Range

_LATEST: Final = 2**40  # seconds since 1970: no date that four digits can write is later
_MINUTES: Final = 24 * 60


def prefixes(text: str) -> list[Prefix]:
    """``10.0.0.1``, ``10.0.0.0/8``, ``fd00::/8`` or, from one to another, ``10.0.0.5-10.0.0.9``."""
    first, dash, last = text.partition("-")
    try:
        if not dash:
            return [_prefix(ipaddress.ip_network(text))]
        begin, end = ipaddress.ip_address(first), ipaddress.ip_address(last)
    except ValueError as error:
        raise ValueError(_address_problem(text, error)) from None
    if begin.version != end.version:
        raise ValueError("begins with one IP version and ends with the other")
    if begin > end:  # type: ignore[operator]
        raise ValueError("ends before it begins")
    return [_prefix(network) for network in ipaddress.summarize_address_range(begin, end)]


def _prefix(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Prefix:
    return Prefix(len(network.network_address.packed), int(network.network_address), int(network.netmask))


def _address_problem(text: str, error: ValueError) -> str:
    if "host bits" in str(error):
        return f"has bits beyond its prefix length; the prefix is {ipaddress.ip_network(text, strict=False)}"
    return "is not an address or a prefix like 10.0.0.0/8 or fd00::/8"


def port_range(text: str) -> Range:
    """``80``, ``8000-8010`` or the name of a service."""
    if not text[0].isdigit():
        if text not in words.SERVICES:
            raise ValueError("is no service that is known")
        return Range(words.SERVICES[text], words.SERVICES[text])
    return number_range(text, 0, 65535)


def number_range(text: str, low: int, high: int) -> Range:
    """``8`` or ``8-10``."""
    if len(text) > 16:
        raise ValueError(f"must be in {low} to {high}")
    first, _, last = text.partition("-")
    found = Range(int(first), int(last or first))
    if not low <= found.first <= high or not low <= found.last <= high:
        raise ValueError(f"must be in {low} to {high}")
    if found.first > found.last:
        raise ValueError("ends before it begins")
    return found


def number(text: str, low: int, high: int) -> int:
    """A whole number within bounds."""
    if not low <= int(text) <= high:
        raise ValueError(f"must be in {low} to {high}")
    return int(text)


def flags(text: str) -> Flags:
    """``syn/syn,ack``: of SYN and ACK, SYN is set and ACK is not. ``none/fin,syn`` has neither."""
    value, slash, mask = text.lower().partition("/")
    if not slash:
        raise ValueError("must say which flags it looks at: syn/syn,ack means SYN set and ACK not")
    found = Flags(_flags(mask), 0 if value == "none" else _flags(value))
    if found.value & ~found.mask:
        raise ValueError("wants flags that it does not look at: those before the '/' must be among those behind it")
    return found


def _flags(text: str) -> int:
    bits = 0
    for name in text.split(","):
        if name not in words.FLAGS:
            raise ValueError(f"has {name!r}, which is no TCP flag; known: {', '.join(words.FLAGS)}")
        bits |= words.FLAGS[name]
    return bits


def date(text: str) -> int:
    """Seconds since 1970 up to which ``2027-12-31`` (the end of that day) or ``2027-12-31T18:00`` holds, in UTC."""
    try:
        when = datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
        if len(text) == 10:
            when += timedelta(days=1)
    except (ValueError, OverflowError):
        raise ValueError("is not a date, as 2027-12-31, or a date and time of UTC, as 2027-12-31T18:00") from None
    seconds = int(when.timestamp())
    if not 0 < seconds < _LATEST:
        raise ValueError("must be after 1970")
    return seconds


def days(text: str) -> int:
    """``mon-fri,sun`` as bits; ``sat-mon`` goes over the end of the week."""
    bits = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = words.DAYS.index(first), words.DAYS.index(last or first)
        for day in range(begin, end + 1 if end >= begin else end + 8):
            bits |= 1 << day % 7
    return bits


EVERY_DAY: Final = 0x7F


def hours(on: int, text: str) -> list[Hours]:
    """``08:00-18:00`` of the days ``on``; what goes over midnight ends on the day after."""
    match = re.fullmatch(r"(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)", text)
    assert match  # as the grammar has it
    hour1, minute1, hour2, minute2 = map(int, match.groups())
    first, last = hour1 * 60 + minute1, hour2 * 60 + minute2
    if max(minute1, minute2) > 59 or first >= _MINUTES or last > _MINUTES:
        raise ValueError("must be times from 00:00 to 24:00")
    if first == last:
        raise ValueError("begins and ends at once; a whole day is 00:00-24:00")
    if first < last:
        return [Hours(on, first, last)]
    after = (on << 1 | on >> 6) & EVERY_DAY
    return [Hours(on, first, _MINUTES), *([Hours(after, 0, last)] if last else [])]


def mac(text: str) -> bytes:
    """``02:00:00:00:00:01``."""
    if not re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        raise ValueError("is not a MAC address like 02:00:00:00:00:01")
    return bytes.fromhex(re.sub("[:-]", "", text))


def target(text: str) -> tuple[int, int]:
    """An IPv4 address, and a port or 0: ``192.0.2.1``, ``192.0.2.1:80``."""
    host, colon, port = text.partition(":")
    try:
        address = int(ipaddress.IPv4Address(host))
    except ValueError:
        raise ValueError("is not an IPv4 address, alone or with a port, like 192.0.2.1:80") from None
    if not colon:
        return address, 0
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError("has a port that is not in 1 to 65535")
    return address, int(port)
