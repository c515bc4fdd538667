"""`septumctl peers`: who may come through the tunnel, and what they carry."""

from __future__ import annotations

import base64
import fnmatch
import ipaddress
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from appliance.cli import helping
from appliance.ctl import reach, say
from appliance.ctl.say import Json
from appliance.ctl.trouble import Exit, Trouble

app = helping.App(help="The tunnel's peers: list, show, add, set, remove, import.")

_MOST_IN_A_TABLE: Final = 300  # rich takes ten seconds to lay out ten thousand rows
_ALIVE: Final = 180  # seconds since a handshake after which a session is at its end (Reject-After-Time)

Commit = Annotated[bool, typer.Option("--commit", "-C", help="Commit at once, if nothing else is in the candidate.")]
Message = Annotated[str, typer.Option("--message", "-m", help="Why, for the history.")]
Confirm = Annotated[str, typer.Option("--confirm", metavar="TIME", help="As of `config commit`; with --commit.")]


def complete_peer(incomplete: str) -> list[str]:
    """Names of the candidate, or of what was downloaded last: completing never waits for a box."""
    from appliance.ctl import candidate

    try:
        mine = candidate.load(reach.the_context())
        entries = mine.made.peers if mine else _last_known()
    except Exception:
        return []
    return [peer.name for peer in entries if peer.name.startswith(incomplete)]


def _last_known() -> tuple[Any, ...]:
    from appliance.signed import peers

    folder = reach.the_context().folder / "sections"
    for file in sorted(folder.iterdir(), key=lambda one: -one.stat().st_mtime):
        if (raw := file.read_bytes()).startswith(b'{"peers":'):
            return peers.parse(raw)
    return ()


Name = Annotated[str, typer.Argument(help="Its name, or its public key.", autocompletion=complete_peer)]


class Row(NamedTuple):
    """A peer of the signed configuration, and what the box says that it does."""

    entry: Any
    state: Any  # admin.v1.Peer; None if the box says nothing of it


def states(box: Any) -> dict[bytes, Any]:
    """What the box says of its peers, by public key. Errors: Trouble."""
    with say.progress("reading peers") as tell:
        return {_raw(one.public_key): one for one in box.everybody(tell)}


def _raw(key: str) -> bytes:
    try:
        return base64.b64decode(key, validate=True)
    except ValueError:
        return key.encode()


def rows(box: Any) -> list[Row]:
    """The peers that are in force, as they were signed, with what the box says that they do. Errors: Trouble."""
    from appliance.ctl import chain, configuration

    known = chain.look(box)
    entry = known.in_force
    section = chain.content(box, entry.commit, chain.PEERS)[0] if entry else b'{"peers":[]}'
    entries = configuration.parse_peers(section)
    said = states(box)
    if strangers := said.keys() - {peer.public_key for peer in entries}:
        names = ", ".join(sorted(say.clean(said[key].name or said[key].public_key) for key in strangers)[:5])
        say.warn(f"the box shows {len(strangers)} peers that nobody signed: {names}; is a commit just being made?")
    return [Row(peer, said.get(peer.public_key)) for peer in entries]


def find(entries: Iterable[Any], name: str) -> Any:
    """The peer of that name or public key. Errors: Trouble."""
    there = list(entries)
    for peer in there:
        if name in (peer.name, base64.b64encode(peer.public_key).decode()):
            return peer
    import difflib

    near = difflib.get_close_matches(name, [peer.name for peer in there], 3)
    then = f"did you mean {', '.join(near)}?" if near else "septumctl peers list"
    raise Trouble(Exit.REFUSED, f"there is no peer {name!r}", then, reason="NOT_FOUND")


# looking --------------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Only those called so: 'site-*'.")] = "",
    active: Annotated[bool, typer.Option("--active", help="Only those with a session.")] = False,
    json_: Json = False,
) -> None:
    """List the peers: what was signed about them, and what they do."""
    with reach.the_box() as box:
        everybody = rows(box)
    found = [
        row
        for row in everybody
        if (not pattern or fnmatch.fnmatchcase(row.entry.name, pattern)) and (not active or _is_active(row.state))
    ]
    if say.is_json():
        say.as_json([as_json(row) for row in found])
        return
    if len(found) > _MOST_IN_A_TABLE:
        for row in found:
            say.out.out("\t".join(_cells(row)), highlight=False)
    else:
        title = (
            f"{len(found):,} of {len(everybody):,} peers"
            if len(found) < len(everybody)
            else say.plural(len(found), "peer")
        )
        columns = ("name", "allowed ips", "endpoint", "handshake", "received", "sent")
        shown = [
            (say.Text(row.entry.name, style="bold"), *_cells(row)[1:3], _heard(row.state), *_cells(row)[4:])
            for row in found
        ]
        say.table(f"{title} of {box.context.name}", columns, shown)


def _is_active(state: Any) -> bool:
    return state is not None and bool(state.handshake) and time.time() - state.handshake < _ALIVE


def _cells(row: Row) -> tuple[str, ...]:
    entry, state = row
    ips = list(entry.allowed_ips)
    shown = ", ".join(ips[:3]) + (f" and {len(ips) - 3} more" if len(ips) > 3 else "")
    if state is None:
        return entry.name, shown, entry.endpoint or "-", "-", "-", "-"
    return (
        entry.name,
        shown,
        say.clean(state.endpoint) or entry.endpoint or "-",
        say.ago(state.handshake * 1000),
        say.amount(state.received),
        say.amount(state.sent),
    )


def _heard(state: Any) -> Any:
    if state is None:
        return "-"
    style = "green" if _is_active(state) else "dim" if not state.handshake else ""
    return say.Text(say.ago(state.handshake * 1000), style=style)


def as_json(row: Row) -> Mapping[str, Any]:
    """A peer for machines."""
    from appliance.ctl import configuration

    state = row.state
    told: dict[str, Any] = dict(configuration.as_json(row.entry))
    told["seen_at"] = (state.endpoint or None) if state else None
    told["handshake"] = say.stamp(state.handshake * 1000) if state else None
    told |= {"received": state.received if state else None, "sent": state.sent if state else None}
    return told


@app.command()
def show(name: Name, json_: Json = False) -> None:
    """Show all about one peer."""
    with reach.the_box() as box:
        everybody = rows(box)
    entry = find((row.entry for row in everybody), name)
    row = next(one for one in everybody if one.entry is entry)
    if say.is_json():
        say.as_json(as_json(row))
        return
    say.out.print(say.Text.assemble("peer: ", (entry.name, "bold")))
    state = row.state
    lines = {
        "number": str(entry.number),
        "public key": base64.b64encode(entry.public_key).decode(),
        "preshared key": "(sealed to the box)" if entry.preshared_key else "",
        "allowed ips": ", ".join(entry.allowed_ips) or "(none)",
        "configured endpoint": entry.endpoint,
        "keepalive": f"every {entry.keepalive} s" if entry.keepalive else "",
    }
    if state is not None:
        lines["endpoint"] = say.clean(state.endpoint)
        lines["latest handshake"] = say.ago(state.handshake * 1000)
        lines["transfer"] = f"{say.amount(state.received)} received, {say.amount(state.sent)} sent"
    for label, text in lines.items():
        if text:
            say.out.print(f"  {label}: {text}", markup=False, soft_wrap=True)


# changing -------------------------------------------------------------------------------------------------------------


class _Added(NamedTuple):
    """What `peers add` has made, for who is to have it."""

    entry: Any
    private_key: str  # base64; empty: they have their own
    preshared_key: str


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it; rules can name it so.")],
    allowed_ips: Annotated[
        list[str] | None,
        typer.Option("--allowed-ips", "-i", help="Its addresses in the tunnel; the next free one if absent."),
    ] = None,
    public_key: Annotated[
        str, typer.Option("--public-key", "-k", help="Its key; if absent, keys are made here for it.")
    ] = "",
    endpoint: Annotated[str, typer.Option("--endpoint", "-e", help="Where it is, if it is always there.")] = "",
    keepalive: Annotated[int, typer.Option("--keepalive", help="Seconds between signs of life.", min=0, max=65535)] = 0,
    preshared_key: Annotated[
        str, typer.Option("--preshared-key", "-p", help="'new', or a file with one; it is sealed to the box.")
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write its wg-quick file here.")] = None,
    qr: Annotated[bool, typer.Option("--qr", help="Draw its wg-quick file as a QR code, for a telephone.")] = False,
    box_endpoint: Annotated[
        str, typer.Option("--box-endpoint", help="Where it reaches the box; remembered. Guessed if never said.")
    ] = "",
    routes: Annotated[
        str, typer.Option("--routes", help="What it sends into the tunnel; remembered.", show_default=False)
    ] = "",
    dns: Annotated[str, typer.Option("--dns", help="Its name servers; remembered.")] = "",
    commit: Commit = False,
    message: Message = "",
    confirm: Confirm = "",
    json_: Json = False,
) -> None:
    """Add a peer. Unless you give its public key, its keys are made here, and its file for wg-quick is printed.

    The box never sees a peer's private key. What has been printed is not kept: keep it, or add the peer anew.
    """
    from appliance.ctl import changing

    given = _given(public_key, endpoint, allowed_ips)
    made: dict[str, Any] = {}

    def edit(box: Any, before: Any) -> Any:
        added, client = _make(box, before, name, given, keepalive, preshared_key, (box_endpoint, routes, dns))
        made.update(added=added, client=client)
        if client is not None and out is not None:
            _write(out, client.text())  # before the peer is there: its key must not be lost
        peers = tuple(sorted((*before.peers, added.entry)))
        return before._replace(peers=peers)

    found = changing.change(edit, message or f"peers add {name}", commit, _seconds(confirm))
    added, client = made["added"], made["client"]
    entry = added.entry
    told: dict[str, Any] = {"name": name, "number": entry.number, "allowed_ips": list(entry.allowed_ips)}
    told["public_key"] = base64.b64encode(entry.public_key).decode()
    if say.is_json():
        told |= {"client": client.text()} if client else {}
    changing.told(f"{name} added with {', '.join(entry.allowed_ips) or 'no addresses'}", found, **told)
    if client is not None:
        _hand_out(client, out, qr)


def _write(file: Path, text: str) -> None:
    from appliance.management.files import write

    try:
        write(file, text)
    except OSError as error:
        raise Trouble(Exit.USAGE, f"{file}: {error.strerror}; nothing was changed", "--out FILE") from None


def _seconds(confirm: str) -> int:
    from appliance.ctl.config_commands import seconds

    return seconds(confirm)


def _given(public_key: str, endpoint: str, allowed_ips: list[str] | None) -> dict[str, Any]:
    """What was said on the command line, read. Errors: Trouble (USAGE)."""
    from appliance.ctl import editing

    found: dict[str, Any] = {}
    for option, value, read in (
        ("--public-key", public_key, editing.key_of),
        ("--endpoint", endpoint, editing.resolved),
        ("--allowed-ips", _split(allowed_ips) or None, editing.prefixes),
    ):
        if value:
            try:
                found[option[2:].replace("-", "_")] = read(value)  # type: ignore[arg-type]
            except ValueError as error:
                raise Trouble(Exit.USAGE, f"{option} {error}", f"septumctl peers add --help, of {option}") from None
    return found


def _split(texts: Iterable[str] | None) -> list[str]:
    return [part.strip() for text in texts or () for part in text.split(",") if part.strip()]


def _make(
    box: Any,
    before: Any,
    name: str,
    given: Mapping[str, Any],
    keepalive: int,
    preshared: str,
    client: tuple[str, str, str],
) -> tuple[_Added, Any]:
    from appliance.cli.keys import genkey, pubkey
    from appliance.ctl import configuration, sealing
    from appliance.ctl.wgclient import Client
    from appliance.signed.peers import PeerEntry

    if any(peer.name == name for peer in before.peers):
        raise Trouble(Exit.REFUSED, f"there is a peer {name} already", f"septumctl peers set {name} …", reason="EXISTS")
    private = "" if "public_key" in given else genkey()
    key = given.get("public_key") or base64.b64decode(pubkey(private))
    shared = _preshared(preshared)
    status = _status(box) if private or "allowed_ips" not in given else None
    addresses = given.get("allowed_ips") or _next_addresses(box.context, before.peers, status)
    entry = PeerEntry(
        configuration.free_number(before.peers),
        name,
        key,
        addresses,
        given.get("endpoint", ""),
        keepalive,
        sealing.sealer(box)(base64.b64decode(shared)) if shared else b"",
    )
    if not private:
        return _Added(entry, "", shared), None
    endpoint, routes, dns = _client_side(box.context, client, status)
    own = Client(
        name, private, addresses, sealing.pinned(box).public_key, endpoint, _split([routes]), shared, dns, 0, 25
    )
    return _Added(entry, private, shared), own


def _preshared(said: str) -> str:
    """A key in base64, new or from a file; empty for none. Errors: Trouble."""
    from appliance.cli.keys import genpsk
    from appliance.ctl import editing

    if not said:
        return ""
    if said == "new":
        return genpsk()
    try:
        text = Path(said).read_text().strip()
        editing.key_of(text)
        return text
    except OSError as error:
        raise Trouble(Exit.USAGE, f"{said}: {error.strerror}", "--preshared-key new makes one") from None
    except ValueError as error:
        raise Trouble(Exit.USAGE, f"what is in {said} {error}", "--preshared-key new makes one") from None


def _status(box: Any) -> Any:
    from septum.admin.v1 import admin_pb2 as pb

    return box.ask(box.box.GetStatus, pb.GetStatusRequest(), "the addresses of the tunnel")


def _interfaces(context: Any, status: Any) -> list[Any]:
    """The tunnel's addresses, which are the box's word: they are remembered when they are seen first, and must not
    change unnoticed, since who has a peer's address is sent what goes there. Errors: Trouble.
    """
    said = sorted(status.addresses)
    try:
        found = [ipaddress.ip_interface(text) for text in said]
    except ValueError:
        why = f"{context.address} says that the tunnel has addresses which are none"
        raise Trouble(Exit.NOT_BELIEVED, why, "--allowed-ips 10.0.0.2/32") from None
    before = context.seen().get("addresses")
    if before is None:
        context.remember(addresses=said)
    elif before != said:
        why = f"the tunnel has other addresses than before: {', '.join(said)}; it had {', '.join(before)}"
        then = "--allowed-ips says which one the peer has; if the box was given others: septumctl keys accept"
        raise Trouble(Exit.NOT_BELIEVED, why, then, reason="ADDRESSES_CHANGED")
    return found


def _next_addresses(context: Any, peers: Iterable[Any], status: Any) -> tuple[str, ...]:
    """The lowest free address of each of the tunnel's networks. Errors: Trouble."""
    interfaces = _interfaces(context, status)
    networks = [ipaddress.ip_network(text) for peer in peers for text in peer.allowed_ips]
    found = []
    for interface in interfaces:
        taken = [one for one in networks if one.version == interface.version]
        single = {one.network_address for one in taken if one.num_addresses == 1} | {interface.ip}
        wide = [one for one in taken if one.num_addresses > 1]
        for address in _hosts(interface.network):
            if address not in single and not any(address in one for one in wide):
                found.append(f"{address}/{interface.max_prefixlen}")
                break
    if not found:
        why = "no address of the tunnel is free" if interfaces else "the tunnel has no addresses of which to take one"
        raise Trouble(Exit.REFUSED, why, "--allowed-ips 10.0.0.2/32")
    return tuple(found)


def _hosts(network: Any) -> Iterator[Any]:
    """At most as many as there can be peers and some more: a network of IPv6 has no end."""
    for count, address in enumerate(network.hosts()):
        if count > 20_000:
            return
        yield address


def _client_side(context: Any, said: tuple[str, str, str], status: Any) -> tuple[str, str, str]:
    """Endpoint, routes and DNS for a peer's own file: as said, as remembered, or guessed."""
    import json

    from appliance.ctl.contexts import host_and_port
    from appliance.management.files import write

    file = context.folder / "client.json"
    try:
        kept = json.loads(file.read_bytes())
    except (OSError, ValueError):
        kept = {}
    told = {key: value for key, value in zip(("endpoint", "routes", "dns"), said, strict=True) if value}
    if endpoint := told.get("endpoint"):
        bare = (endpoint.startswith("[") and endpoint.endswith("]")) or ":" not in endpoint
        told["endpoint"] = f"{endpoint}:{status.listen_port or 51820}" if bare else endpoint
    if told:
        kept |= told
        write(file, json.dumps(kept) + "\n")
    if "endpoint" not in kept:
        host, _ = host_and_port(context.address)
        host = f"[{host}]" if ":" in host else host
        guess = f"{host}:{status.listen_port or 51820}"
        say.warn(f"the peer is told to find the box at {guess}, which is a guess: --box-endpoint says it right, once")
        return guess, kept.get("routes", _ROUTES), kept.get("dns", "")
    return kept["endpoint"], kept.get("routes", _ROUTES), kept.get("dns", "")


_ROUTES: Final = "0.0.0.0/0, ::/0"


def _hand_out(client: Any, out: Path | None, qr: bool) -> None:
    from appliance.ctl.wgclient import show_qr

    text = client.text()
    if out is not None:
        say.note(f"its file for wg-quick is {out}, readable by you alone")
    if say.is_json():
        return
    if qr and not show_qr(text, say.out):
        say.warn("the QR code needs a wider terminal (80 columns or more)")
    if out is None and not qr:
        say.out.out("\n" + text, end="")
        say.hint("\nThis has its private key, and is kept nowhere else.")


@app.command("set")
def set_(
    name: Name,
    rename: Annotated[str, typer.Option("--rename", help="Call it otherwise.")] = "",
    allowed_ips: Annotated[
        list[str] | None, typer.Option("--allowed-ips", "-i", help="All its addresses from now on.")
    ] = None,
    more: Annotated[list[str] | None, typer.Option("--add-ip", help="One more address or prefix.")] = None,
    less: Annotated[list[str] | None, typer.Option("--remove-ip", help="One address or prefix less.")] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", "-e", help="Where it is; '' for unknown.")] = None,
    keepalive: Annotated[
        int, typer.Option("--keepalive", help="Seconds; 0 is off.", min=-1, max=65535, show_default=False)
    ] = -1,
    preshared_key: Annotated[
        str, typer.Option("--preshared-key", "-p", help="'new' (it is printed), a file, or 'none'.")
    ] = "",
    public_key: Annotated[str, typer.Option("--public-key", "-k", help="It has another key now.")] = "",
    commit: Commit = False,
    message: Message = "",
    confirm: Confirm = "",
    json_: Json = False,
) -> None:
    """Change a peer. Its session lives on unless its key changes."""
    from appliance.ctl import changing, configuration, sealing

    given = _given(public_key, endpoint or "", allowed_ips)
    plus, minus = (_given("", "", one).get("allowed_ips", ()) for one in (more, less))
    shared = "" if preshared_key == "none" else _preshared(preshared_key)

    def edit(box: Any, before: Any) -> Any:
        old = find(before.peers, name)
        addresses = [one for one in given.get("allowed_ips", old.allowed_ips) if one not in minus]
        new = old._replace(
            name=rename or old.name,
            allowed_ips=tuple(dict.fromkeys((*addresses, *plus))),
            endpoint=given.get("endpoint", old.endpoint if endpoint is None else ""),
            keepalive=old.keepalive if keepalive < 0 else keepalive,
        )
        if preshared_key:
            new = new._replace(preshared_key=sealing.sealer(box)(base64.b64decode(shared)) if shared else b"")
        if given.get("public_key", old.public_key) != old.public_key:
            new = new._replace(public_key=given["public_key"], number=configuration.free_number(before.peers))
        if new == old:
            raise Trouble(Exit.REFUSED, f"{name} is so already", "septumctl peers set --help", reason="UNCHANGED")
        return before._replace(peers=tuple(sorted(new if peer is old else peer for peer in before.peers)))

    found = changing.change(edit, message or f"peers set {name}", commit, _seconds(confirm))
    changing.told(f"{name} changed", found, name=rename or name, **({"preshared_key": shared} if shared else {}))
    if shared and preshared_key == "new" and not say.is_json():
        say.out.out(f"its preshared key: {shared}")


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(help="Names or public keys.", autocompletion=complete_peer)],
    commit: Commit = False,
    message: Message = "",
    confirm: Confirm = "",
    json_: Json = False,
) -> None:
    """Remove peers. In force, their sessions end at once."""
    from appliance.ctl import changing

    def edit(box: Any, before: Any) -> Any:
        gone = [find(before.peers, name) for name in names]
        return before._replace(peers=tuple(peer for peer in before.peers if peer not in gone))

    said = message or f"peers remove {' '.join(names)}"[:200]
    found = changing.change(edit, said, commit, _seconds(confirm))
    changing.told(f"{', '.join(names)} removed", found, removed=names)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A wg-quick file, as wg0.conf; only its [Peer] sections count.")],
    replace: Annotated[bool, typer.Option("--replace", help="Remove the peers that are not in it.")] = False,
    commit: Commit = False,
    message: Message = "",
    confirm: Confirm = "",
    json_: Json = False,
) -> None:
    """Take peers from a wg-quick file. Those that are known by their keys are changed, the others added.

    A peer is called as a comment at its [Peer] says (docs/filter.md), or else peer-N.
    """
    from appliance.ctl import changing

    parsed = _parse_wgquick(file)

    def edit(box: Any, before: Any) -> Any:
        return _merged(box, before, parsed, replace)

    found = changing.change(edit, message or f"peers import {file.name}", commit, _seconds(confirm))
    changing.told(f"{say.plural(len(parsed), 'peer')} of {file}", found, peers=len(parsed))


def _parse_wgquick(file: Path) -> list[Any]:
    from appliance.assembly import peernames, wgquick
    from appliance.ctl.trouble import Place

    try:
        text = file.read_bytes()[: wgquick.MAX_BYTES].decode(errors="surrogateescape")
    except OSError as error:
        raise Trouble(Exit.USAGE, f"{file}: {error.strerror}") from None
    found = wgquick.parse(text)
    called = peernames.names(text)
    places = [Place(f"{file.name}:{line}", why) for line, why in found.problems]
    places += [
        Place(f"{file.name}:{peer.line}", "this [Peer] has no PublicKey")
        for peer in found.peers
        if "public_key" not in peer.settings
    ]
    if places:
        raise Trouble(Exit.INVALID, f"{file}: {len(places)} mistakes; nothing was changed", "", places)
    for peer in found.peers:
        peer.settings["name"] = called.get(peer.line, "")
    return found.peers


def _merged(box: Any, before: Any, parsed: Iterable[Any], replace: bool) -> Any:
    import re

    from appliance.ctl import editing, sealing
    from appliance.signed.peers import MOST_PEERS, PeerEntry

    seal = sealing.sealer(box)
    entries = {peer.public_key: peer for peer in before.peers}
    mentioned = set()
    taken = {peer.number for peer in before.peers}
    numbers = (number for number in range(1, 1 << 16) if number not in taken)
    for one in parsed:
        said = one.settings
        key = base64.b64decode(said["public_key"])
        mentioned.add(key)
        old = entries.get(key)
        number = old.number if old else next(numbers)
        name = re.sub(r"[^A-Za-z0-9._@+-]+", "-", said["name"]).strip("-")[:63]
        shared = said.get("preshared_key")
        try:
            endpoint = editing.resolved(str(said.get("endpoint", "")))
        except ValueError as error:
            raise Trouble(Exit.INVALID, f"Endpoint at line {one.line} {error}", "write its address") from None
        entries[key] = PeerEntry(
            number,
            name or (old.name if old else f"peer-{number}"),
            key,
            tuple(str(prefix) for prefix in one.allowed),
            endpoint,
            int(said.get("keepalive", 0)),
            seal(shared.reveal()) if shared else b"",
        )
    kept = [peer for key, peer in entries.items() if key in mentioned or not replace]
    if len(kept) > MOST_PEERS:
        raise Trouble(Exit.INVALID, f"{len(kept):,} peers are more than a box takes")
    return before._replace(peers=tuple(sorted(kept)))


say.bare(app, lambda: list_(pattern="", active=False))
