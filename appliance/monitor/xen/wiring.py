"""What stands in the xenstore for a guest, and who may read and write it: data, computed without a xenstore.

A guest's home belongs to dom0, all of it: the guest reads it, writes the values of a few leaves that were made for it,
and can neither make nodes (a flood), nor open one of its own to somebody else (a channel that nobody declared). Who is
at the other end of a channel it learns from a node that it cannot write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from appliance.guest.outside import OUTSIDE
from appliance.monitor.xen.plan import Link, Plan

DOM0: Final = 0
GO: Final = "septum/go"
STATUS: Final = "data/status"
TOLD: Final = "data/told"


VIF: Final = "device/vif/0"
NETFRONT: Final = tuple(
    f"{VIF}/{leaf}"
    for leaf in """state tx-ring-ref rx-ring-ref event-channel event-channel-tx event-channel-rx request-rx-copy
    feature-rx-notify feature-sg feature-gso-tcpv4 feature-gso-tcpv6 feature-ipv6-csum-offload multi-queue-num-queues
    xdp-headroom""".split()
)
"""All that Linux' netfront writes (drivers/net/xen-netfront.c). An empty one is to netback as one that is not there."""


class Node(NamedTuple):
    """One node: below the guest's home, its value, and its permissions as the xenstore writes them."""

    path: str
    value: str
    permissions: tuple[str, ...]


def peer_path(channel: int) -> str:
    return f"septum/channel/{channel}/peer"


def offers(channel: int) -> tuple[str, str]:
    """What the server of a channel writes: the references of its grants, and the event channel's port."""
    return f"data/channel/{channel}/ring-ref", f"data/channel/{channel}/event-channel"


def reads(domid: int) -> tuple[str, ...]:
    """dom0's; the guest may read."""
    return f"n{DOM0}", f"r{domid}"


def writes(domid: int, reader: int | None = None) -> tuple[str, ...]:
    """dom0's; the guest may write the value, and ``reader`` read it (dom0 may anyway)."""
    return (f"n{DOM0}", f"b{domid}") + ((f"r{reader}",) if reader not in (None, DOM0) else ())


def _peer(link: Link, domids: Mapping[str, int]) -> int | None:
    """Who is at the other end now. The operator's tools, and who keeps a disk, are programs of dom0, which is always
    there: each maps in its turn what was granted once.
    """
    return DOM0 if link.peer in OUTSIDE else domids.get(link.peer)


def home(plan: Plan, domid: int, domids: Mapping[str, int]) -> list[Node]:
    """Every node that the guest ``domid`` is given. ``domids`` are those of its peers that are there."""
    nodes = [
        Node("septum", "", reads(domid)),
        Node("septum/channel", "", reads(domid)),
        Node(GO, "", reads(domid)),
        Node("data", "", reads(domid)),
        Node("data/channel", "", reads(domid)),
        Node(STATUS, "", writes(domid)),
    ]
    if plan.told_pages:
        nodes.append(Node(TOLD, "", writes(domid)))
    for link in plan.links:
        peer = _peer(link, domids)
        above = peer_path(link.number).rpartition("/")[0]
        nodes += [
            Node(above, "", reads(domid)),
            Node(peer_path(link.number), "" if peer is None else str(peer), reads(domid)),
        ]
        if link.is_server:
            nodes.append(Node(offers(link.number)[0].rpartition("/")[0], "", reads(domid)))
            nodes += [Node(path, "", writes(domid, peer)) for path in offers(link.number)]
    return nodes


def arrival(plan: Plan, domid: int, peers: Mapping[str, Plan], domids: Mapping[str, int]) -> list[tuple[int, Node]]:
    """What changes in the homes of the peers that are there, now that ``plan``'s domain is ``domid``.

    First who may read what, then the news itself: whoever is told can act on it at once.
    """
    granted, told = [], []
    for link in plan.links:
        peer = domids.get(link.peer)
        if peer is None:
            continue
        if not link.is_server:
            granted += [(peer, Node(path, "", writes(peer, domid))) for path in offers(link.number)]
        told.append((peer, Node(peer_path(link.number), str(domid), reads(peer))))
    return granted + told


def departure(plan: Plan, domids: Mapping[str, int]) -> list[tuple[int, Node]]:
    """What changes in the homes of the peers that are there, now that ``plan``'s domain is gone.

    What a surviving server had offered is taken away: it was for the dead one.
    """
    told, withdrawn = [], []
    for link in plan.links:
        peer = domids.get(link.peer)
        if peer is None:
            continue
        told.append((peer, Node(peer_path(link.number), "", reads(peer))))
        if not link.is_server:
            withdrawn += [(peer, Node(path, "", writes(peer))) for path in offers(link.number)]
    return told + withdrawn
