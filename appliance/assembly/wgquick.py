"""A wg-quick file as a box: the gateway of ``assemblies/vpn.toml`` with the network, keys and peers of the file.

The file is read as wg-quick(8) and wg(8) read it: wg-quick takes its own keys out of ``[Interface]``, wg the rest, both
without regard to case, up to ``#``; wg drops every blank within a line. What the box does otherwise than by a shell
script it refuses, one clear line each, and all that is wrong is said at once. No line ever shows a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from appliance.assembly import addresses, keyfiles, peernames
from appliance.assembly.document import Document, read
from appliance.assembly.draft import NETWORK
from appliance.assembly.findings import AssemblyError, Finding, hint, show
from appliance.assembly.lines import Path as Way
from appliance.assembly.load import VPN, validate
from appliance.assembly.model import Prefix, ValidatedAssembly
from appliance.guest.secret import Secret

WGQUICK: Final = ("wg-quick", "The file is one that wg-quick takes, and asks for nothing that the box does not do.")

MAX_BYTES: Final = 1 << 24
"""Room for as many peers as there are numbers for them."""

# What wg's isspace() knows
_BLANKS: Final = " \t\n\v\f\r"
_BLANK: Final = re.compile(f"[{_BLANKS}]+")


@dataclass
class Peer:
    """What one ``[Peer]`` section says, as settings of keymgr; ``places`` has the line of each."""

    line: int
    settings: dict[str, object] = field(default_factory=dict)
    places: dict[Way, int] = field(default_factory=dict)
    allowed: dict[Prefix, int] = field(default_factory=dict)


@dataclass
class Configuration:
    """What the file says, in the words of ``[network]`` and of keymgr's settings, with the line of each."""

    network: dict[str, object] = field(default_factory=dict)
    places: dict[Way, int] = field(default_factory=dict)
    addresses: list[tuple[str, int]] = field(default_factory=list)
    private_key: Secret | None = None
    interface_line: int = 0
    peers: list[Peer] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


# One function for each key. Each is given the value without blanks around it and raises ValueError with the end of a
# sentence.


def _number(low: int, high: int) -> Callable[[str], int]:
    def number(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a number from {low} to {high}, not {show(value)}")
        return int(value)

    return number


_port = _number(0, 65535)
_seconds = _number(0, 65535)
_mtu = _number(NETWORK["mtu"].low, NETWORK["mtu"].high)
_table_number = _number(1, 2**32 - 1)


def _fwmark(value: str) -> int:
    if value.lower() == "off":
        return 0
    base = 16 if value.startswith("0x") else 10
    if not re.fullmatch(r"0x[0-9a-fA-F]+|[0-9]+", value) or len(value) > 32 or int(value, base) >= 2**32:
        raise ValueError(f"must be 'off' or a number of 32 bits, decimal or 0x…, not {show(value)}")
    return int(value, base)


def _keepalive(value: str) -> int:
    return 0 if value.lower() == "off" else _seconds(value)


def _table(value: str) -> int | str:
    lower = value.lower()
    if lower in ("off", "auto"):
        return lower
    if not value.isdecimal():
        raise ValueError(f"must be 'off', 'auto' or the number of a table, not {show(value)}")
    return _table_number(value)


# What wg-quick does on the host by running programs as root. The box has no such door.
REFUSED: Final = {
    "dns": "the box does not touch the host's resolver: set the name servers of the LAN's clients by DHCP or by hand",
    "preup": "the box runs no commands: do it before `septum up`, e.g. ExecStartPre= of the systemd unit",
    "postup": "the box runs no commands: do it after `septum up`, e.g. ExecStartPost= of the systemd unit",
    "predown": "the box runs no commands: do it before `septum down`, e.g. ExecStop= of the systemd unit",
    "postdown": "the box runs no commands: do it after `septum down`, e.g. ExecStopPost= of the systemd unit",
    "saveconfig": "the box never writes its own configuration: edit the file, then `septum down` and `septum up`",
}

SPELLING: Final = {
    key.lower(): key
    for key in (
        "PrivateKey ListenPort FwMark Address MTU Table DNS PreUp PostUp PreDown PostDown SaveConfig "
        "PublicKey PresharedKey AllowedIPs Endpoint PersistentKeepalive"
    ).split()
}
# wg-quick's own; the rest of a line with one of these is not for wg
_QUICK: Final = ("address", "mtu", "table", *REFUSED)
_INTERFACE: Final = ("privatekey", "listenport", "fwmark", *_QUICK)

_NETWORK_KEYS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "listenport": ("listen_port", _port),
    "fwmark": ("fwmark", _fwmark),
    "mtu": ("mtu", _mtu),
    "table": ("table", _table),
}


def _interface_key(configuration: Configuration, line: int, key: str, value: str) -> None:
    if key == "privatekey":
        configuration.places["settings", "keymgr", "private_key"] = line
        configuration.private_key = Secret(keyfiles.key(value))
    elif key == "address":
        # wg-quick splits where wg does not: at blanks too
        texts = [text for text in re.split(f"[,{_BLANKS}]+", value) if text]
        configuration.addresses += [(str(addresses.interface(text)), line) for text in texts]
    elif key == "saveconfig" and value.lower() == "false":
        pass  # asks for nothing
    elif key in REFUSED:
        raise ValueError(f"is not done: {REFUSED[key]}")
    else:
        name, parse = _NETWORK_KEYS[key]
        configuration.places["network", name] = line
        configuration.network[name] = parse(value)


_PEER_KEYS: Final = {
    "publickey": "public_key",
    "presharedkey": "preshared_key",
    "allowedips": "allowed_ips",
    "endpoint": "endpoint",
    "persistentkeepalive": "keepalive",
}


def _peer_key(peer: Peer, line: int, key: str, value: str) -> None:
    name = _PEER_KEYS[key]
    peer.places[name,] = line
    match name:
        case "public_key":
            peer.settings[name] = keyfiles.encode(keyfiles.key(value))
        case "preshared_key":
            peer.settings[name] = Secret(keyfiles.key(value))
        case "allowed_ips":
            peer.allowed.update((addresses.prefix(text), line) for text in value.split(","))
        case "endpoint":
            peer.settings[name] = addresses.endpoint(value)
        case "keepalive":
            peer.settings[name] = _keepalive(value)


def _unknown(stripped: str, section: str | None) -> str:
    """What to say of a line that neither program knows. It may be a key, mistyped: show words only."""
    word = _BLANK.sub("", stripped.partition("=")[0])
    if not re.fullmatch(r"\[?[A-Za-z]{1,20}\]?", word) or ("=" not in stripped and not word.startswith("[")):
        return "this is neither a section nor `Key = value`"
    if word.startswith("["):
        return f"there is no section {show(word)}; there are [Interface] and [Peer]"
    if section is None:
        return f"{show(word)} stands before the first [Interface] or [Peer]"
    known = [SPELLING[key] for key in (_PEER_KEYS if section == "peer" else _INTERFACE)]
    other = SPELLING.get(word.lower())
    if other and other not in known:
        return f"{other} belongs into [{'Interface' if section == 'peer' else 'Peer'}]"
    done = [name for name in known if name.lower() not in REFUSED]
    return f"there is no key {show(word)} in [{section.capitalize()}]{hint(word, done)}"


def parse(text: str) -> Configuration:
    """What the text of a wg-quick file says; ``problems`` has all that is wrong with it, by line."""
    configuration = Configuration()
    section: str | None = None
    for line, written in enumerate(text.split("\n"), 1):
        stripped = written.partition("#")[0].strip(_BLANKS)
        bare = _BLANK.sub("", stripped)
        if not bare:
            continue
        if bare.lower() in ("[interface]", "[peer]"):
            section = bare[1:-1].lower()
            if section == "peer":
                configuration.peers.append(Peer(line))
            else:
                configuration.interface_line = configuration.interface_line or line
            continue
        name, equals, value = (part.strip(_BLANKS) for part in stripped.partition("="))
        key = _BLANK.sub("", name).lower()
        if key not in _QUICK:
            value = _BLANK.sub("", value)
        try:
            if not equals:
                configuration.problems.append((line, _unknown(stripped, section)))
            elif section == "interface" and key in _INTERFACE:
                _interface_key(configuration, line, key, value)
            elif section == "peer" and key in _PEER_KEYS:
                _peer_key(configuration.peers[-1], line, key, value)
            else:
                configuration.problems.append((line, _unknown(stripped, section)))
        except ValueError as error:
            configuration.problems.append((line, f"{SPELLING[key]} {error}"))
    return configuration


def _merge(configuration: Configuration) -> list[Peer]:
    """The peers as the kernel would have them after every section was set in turn.

    A second section with a known public key replaces the allowed IPs and what else it says; a prefix belongs to the
    last peer that claims it; the box is no peer of itself.
    """
    own = ""
    if configuration.private_key:
        own = keyfiles.encode(keyfiles.public_key(configuration.private_key))
    merged: dict[object, Peer] = {}
    owners: dict[Prefix, Peer] = {}
    for peer in configuration.peers:
        public = peer.settings.get("public_key")
        if public == own:
            configuration.warnings.append(f"Warning: the [Peer] at line {peer.line} is the box itself; it is ignored")
            continue
        known = merged.setdefault(public, peer)
        for prefix in known.allowed if known is not peer else ():
            del owners[prefix]
        known.settings |= peer.settings
        known.places |= peer.places
        known.allowed = peer.allowed
        for prefix in peer.allowed:
            if prefix in owners:
                del owners[prefix].allowed[prefix]
            owners[prefix] = known
    return list(merged.values())


def _settings(configuration: Configuration, peers: list[Peer]) -> dict[str, object]:
    """keymgr's settings, and in ``configuration.places`` where each of them was written."""
    tables = []
    for i, peer in enumerate(peers):
        way: Way = ("settings", "keymgr", "peers", i)
        configuration.places[way] = peer.line
        configuration.places |= {(*way, *key): line for key, line in peer.places.items()}
        for j, line in enumerate(peer.allowed.values()):
            configuration.places[(*way, "allowed_ips", j)] = line
        tables.append(peer.settings | {"allowed_ips": [str(prefix) for prefix in peer.allowed]})
    return {"private_key": configuration.private_key, "peers": tables}


def from_wgquick(
    path: Path, *, lan: str | None = None, wan: str | None = None, base: Path = VPN, rules: Path | None = None
) -> ValidatedAssembly:
    """The box that a wg-quick file describes, over the assembly ``base``; the tunnel is named as the file is.

    ``lan`` and ``wan`` are the interfaces of the host that become the box's own; ``rules`` is a file to take in place
    of the base's.
    Errors: AssemblyError with every finding: file, line, what to do. OSError if the file cannot be read.
    """
    with path.open("rb") as opened:
        raw = opened.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise AssemblyError([Finding(path, 0, *WGQUICK, f"has more than {MAX_BYTES} bytes")])
    # Neither program minds what bytes a comment is made of
    configuration = _named(raw.decode(errors="surrogateescape"))
    problems = configuration.problems
    if not re.fullmatch(addresses.INTERFACE_NAME + r"\.conf", path.name):
        problems.append((0, "the file's name must be that of an interface, at most 15 characters, and .conf: wg0.conf"))
    if ("settings", "keymgr", "private_key") not in configuration.places:
        problems.append((configuration.interface_line, "[Interface] has no PrivateKey; `septum genkey` makes one"))
    problems += [
        (peer.line, "this [Peer] has no PublicKey")
        for peer in configuration.peers
        if ("public_key",) not in peer.places
    ]
    findings = [Finding(path, line, *WGQUICK, detail) for line, detail in problems]
    document = read(base)
    if findings or document.findings:
        raise AssemblyError(findings + document.findings)
    _overlay(document, path, configuration, {"lan": lan, "wan": wan})
    said = keyfiles.warning(path)
    warnings = (*([said] if said else []), *configuration.warnings)
    return validate(document, source=path, warnings=warnings, rules=rules)


def _named(text: str) -> Configuration:
    """``parse``, and what the peers are called."""
    configuration = parse(text)
    called = peernames.names(text)
    for peer in configuration.peers:
        if peer.line in called:
            peer.settings["name"] = called[peer.line]
    return configuration


def peers(path: Path) -> list[dict[str, object]]:
    """The peers of a wg-quick file, in the order in which the box numbers them, with their ``allowed_ips``; nothing
    else of it is checked.

    Errors: OSError.
    """
    with path.open("rb") as opened:
        merged = _merge(_named(opened.read(MAX_BYTES).decode(errors="surrogateescape")))
    return [peer.settings | {"allowed_ips": [str(prefix) for prefix in peer.allowed]} for peer in merged]


def _overlay(document: Document, path: Path, configuration: Configuration, links: dict[str, str | None]) -> None:
    """Puts the network and keymgr's settings of the file into ``document``, the base."""
    peers = _merge(configuration)
    settings: Any = document.tables.setdefault("settings", {})
    settings["keymgr"] = _settings(configuration, peers)
    base = document.tables.get("network")
    document.tables["network"] = {
        **(base if isinstance(base, dict) else {}),
        "tunnel": path.name.removesuffix(".conf"),
        "addresses": [text for text, _ in configuration.addresses],
        **configuration.network,
        **{key: link for key, link in links.items() if link is not None},
    }
    for i, (_, line) in enumerate(configuration.addresses):
        configuration.places["network", "addresses", i] = line
    configuration.places["network",] = configuration.interface_line
    configuration.places["settings", "keymgr"] = configuration.interface_line
    document.places |= {way: (path, line) for way, line in configuration.places.items()}
