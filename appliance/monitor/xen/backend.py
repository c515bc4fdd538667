"""The Xen back end: a domain is a guest, created paused by xl, wired in the xenstore, let go; rebuilt when it dies.

What the monitor does here it does between two looks: creating a guest takes xl a second and more, and meanwhile the
others are supervised, and those that are wired already start. A death is seen by the xenstore's @releaseDomain; a guest
that has shut down or crashed stays until then, so that its last words can be read, and is destroyed here and nowhere
else.
"""

from __future__ import annotations

import json
import os
import select
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from appliance.assembly.model import End, ValidatedAssembly
from appliance.assembly.settings import to_json
from appliance.guest.outside import DOM0, OPERATOR
from appliance.guest.status import PeerRow
from appliance.monitor import replaced
from appliance.monitor.backend import Away, Lent, Pace
from appliance.monitor.control import GUESTS
from appliance.monitor.network import NetworkError
from appliance.monitor.notify import WARNING
from appliance.monitor.process import printable
from appliance.monitor.status import Report
from appliance.monitor.supervisor import LIMITS
from appliance.monitor.xen import bridges, config, patience, ramdisk, seals, wiring
from appliance.monitor.xen.burials import Burials, Remains, domid_of
from appliance.monitor.xen.console import Console
from appliance.monitor.xen.disk import NOWHERE, Disk, place_of
from appliance.monitor.xen.guest import Guest, Stage
from appliance.monitor.xen.images import Boot
from appliance.monitor.xen.pages import StatusPages, references
from appliance.monitor.xen.plan import TOLD, Plan, Side, plans_of, with_sides
from appliance.monitor.xen.told import Told
from appliance.monitor.xen.xl import Job, Xl, XlError, rows
from appliance.xen import gntdev
from appliance.xen.xenstore import Xenstore
from appliance.xen.xswire import number

_RELEASE: Final = "@releaseDomain"
_CONNECTED: Final = "connected"
_FAILURES: Final = (OSError, ValueError, NetworkError)
_SHARE_OF_A_SETTING: Final = 16
"""A setting that is replaced is at most so small a part of the guest's memory: it is there as text, then as values."""


def pace() -> Pace:
    """Of this machine. xl creates one guest after the other, and each then has a kernel and an interpreter to start."""
    factor = patience.factor()
    limits = LIMITS._replace(start=60.0 * factor, heartbeat=LIMITS.heartbeat * factor, reset=1.0)
    return Pace(quick=min(0.25, 0.1 * factor), slow=min(1.0, 0.25 * factor), limits=limits)


class XenBackend:
    """Builds and ends the domains of ``assembly`` as Xen guests, on a Xen that is fit for them (fit.py).

    ``images`` and ``sides`` are by domain and by side.

    ``journal`` is a descriptor for the lines of the domain that holds the journal; ``disk`` is kept for the one that
    holds the store, and the back end's to close. Of ``devices`` the one that speaks for the box gets what is in its
    identity, box and orders. Errors: OSError, ValueError.
    """

    name: Final = "xen"

    def __init__(
        self,
        assembly: ValidatedAssembly,
        box: str,
        directory: Path,
        images: Mapping[str, Boot],
        sides: Mapping[str, Side],
        journal: int,
        xl: Xl | None = None,
        store: Xenstore | None = None,
        disk: Disk | None = None,
        devices: Mapping[str, int] | None = None,
        log: Callable[[int, str], None] = lambda priority, text: None,
    ) -> None:
        self._xl = xl or Xl()
        self.pace = pace()
        self._rest = min(1.0, 0.1 * patience.factor())  # between two looks in the xenstore for one guest's status page
        self._plans = with_sides(plans_of(assembly, box), dict(sides))
        self._images = images
        self._directory = directory
        self._journal = journal
        self._store = store or Xenstore()
        self._store.watch(_RELEASE, "death")
        self._news = select.epoll()
        self._news.register(self._store.fileno(), select.EPOLLIN)
        self._grants = gntdev.open_device()
        self._views = {name: StatusPages(self._grants, plan.status_pages) for name, plan in self._plans.items()}
        self._channels = assembly.channels
        self._disk = disk
        self._disks = {
            name: link.number for name, plan in self._plans.items() for link in plan.links if link.peer == DOM0
        }
        self._replaced: dict[str, bytes] = {}
        held = devices or {}
        self._identity = _content(held["identity"]) if "identity" in held else ""
        self._told = Told(self._grants, held) if held.keys() >= TOLD else None
        self._speaker = next((name for name, plan in self._plans.items() if plan.told_pages), "")
        self._guests: dict[str, Guest] = {}
        self._log = log
        self._burials = Burials(
            self._xl.destroy, self._store, lambda fd: self._news.register(fd, select.EPOLLIN), self._log
        )
        self._somebody_died = False
        self._listing: Job | None = None  # an xl that is asked who has
        self._kernels: dict[str, int] = {}  # by digest: sealed, checked once, for as long as the box lives
        self._seals = seals.Survey(self._xl)
        self.neighbours = {name: tuple(link.peer for link in plan.links) for name, plan in self._plans.items()}
        _record(directory, [plan.title for plan in self._plans.values()])

    # building -------------------------------------------------------------------------------------------------------

    @property
    def news(self) -> int:
        """Readable when an xl is done, or the xenstore has something to say."""
        return self._news.fileno()

    def start(self, name: str) -> int:
        """Has ``name`` created, as soon as xl is done with those before it: it takes one at a time anyway."""
        gone = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        image = self._images[name]
        self._guests[name] = Guest(
            str(uuid.uuid4()), self._views[name], gone, memory_mib=image.memory_mib, image_sha256=image.ramdisk_sha256
        )
        return gone

    def _kernel(self, image: Boot) -> int:
        """The kernel of ``image`` in sealed memory, from which many guests boot, and later lives. Errors: OSError."""
        found = self._kernels.get(image.kernel_sha256)
        if found is None:
            found = ramdisk.sealed("septum-kernel", ramdisk.checked(image.kernel, image.kernel_sha256))
            self._kernels[image.kernel_sha256] = found
        return found

    def _begin(self, name: str, guest: Guest) -> None:
        """Starts xl; what it needs is in sealed memory, read and checked right before. Errors: OSError, ValueError."""
        plan, image = self._plans[name], self._images[name]
        kernel = self._kernel(image)
        own: list[int] = []  # xl has descriptors of its own once it runs
        try:
            base = ramdisk.checked(image.ramdisk, image.ramdisk_sha256)
            description = describe(plan, self._identity) + self._replaced.get(name, b"")
            own.append(ramdisk.sealed("septum-ramdisk", ramdisk.archive(ramdisk.NAME, description), base))
            written = config.of(
                plan,
                uuid=guest.uuid,
                kernel=f"/proc/self/fd/{kernel}",
                ramdisk=f"/proc/self/fd/{own[0]}",
                extra=image.extra,
                memory_mib=image.memory_mib,
            )
            own.append(ramdisk.sealed("septum-config", config.render(written)))
            guest.job = self._xl.create(own[1], (kernel, own[0]))
        finally:
            for fd in own:
                os.close(fd)
        self._news.register(guest.job.fileno(), select.EPOLLIN)

    def turn(self) -> None:
        """Goes on with those that are being created, and with those that are destroyed; sees who has died."""
        now = time.monotonic()
        self._burials.turn(now)
        for name, guest in self._guests.items():
            if guest.stage is Stage.CREATING and not guest.is_dead:
                try:
                    self._create(name, guest)
                except _FAILURES as error:
                    guest.dies(f"could not be built: {error}")
            if guest.console is not None:
                self._listen(name, guest)
        # After the next xl was started: what it takes longest for, it does meanwhile
        for name, guest in self._guests.items():
            if guest.stage is Stage.PAUSED and not guest.is_dead:
                self._let_go(name, guest)
        self._mourn()
        if self._disk is not None:
            for name, channel in self._disks.items():
                self._tell_disk(self._disk, name, channel)
            self._disk.turn(now)
        if self._told is not None and self._speaker in self._guests:
            self._tell(self._told, self._guests[self._speaker])

    def _tell(self, told: Told, guest: Guest) -> None:
        """Tells the domain that speaks for the box, once it has lent the pages for that."""
        if not told.pages.is_mapped and guest.stage is Stage.LET_GO and guest.domid is not None and not guest.is_dead:
            try:
                untrusted = self._store.read(f"{self._store.home(guest.domid)}/{wiring.TOLD}")
                found = references(untrusted or "", told.pages.pages, "what it is told")
                if found is not None:
                    told.map(guest.domid, found)
            except _FAILURES as error:
                guest.dies(str(error))
        told.turn()

    def _tell_disk(self, disk: Disk, name: str, channel: int) -> None:
        """Where the store's guest is, as it says itself, for who keeps its disk."""
        guest = self._guests.get(name)
        if guest is None or guest.is_dead or guest.domid is None or guest.stage is not Stage.LET_GO:
            disk.tell(NOWHERE)
            return
        if guest.has_offered_disk:
            return  # once a life: dom0 is a peer that never goes
        home = self._store.home(guest.domid)
        try:
            offered = [number(self._store.read(f"{home}/{leaf}")) for leaf in wiring.offers(channel)]
        except OSError:  # it is just going
            offered = [None, None]
        place = place_of(guest.domid, offered)
        guest.has_offered_disk = place != NOWHERE
        disk.tell(place)

    def _create(self, name: str, guest: Guest) -> None:
        """The next step of the creation of ``guest``, if it is due."""
        if guest.job is not None and guest.job.is_over:
            job, guest.job = guest.job, None
            job.wait()
            guest.domid = domid_of(self._store, guest.uuid)
            if guest.domid is None:
                raise XlError("xl made a guest that the xenstore does not know")
        if guest.domid is not None:
            self._built(name, guest, guest.domid)
        elif not (self._is_xl_busy() or name in self._burials):  # two of one name there cannot be
            self._begin(name, guest)

    def _is_xl_busy(self) -> bool:
        """It makes one guest at a time."""
        return self._burials.is_creating or any(guest.job is not None for guest in self._guests.values())

    def _built(self, name: str, guest: Guest, domid: int) -> None:
        """xl is done: the guest is there, paused. Wires it, and tells those peers that are there."""
        plan, domids = self._plans[name], self._domids(besides=name)
        home = self._store.home(domid)
        terminal = self._store.read(f"{home}/console/tty")
        if not terminal:
            return  # xenconsoled, which nobody waits for, has not come to it yet: at the next look again
        self._own(home, domid)
        self._write([(domid, node) for node in wiring.home(plan, domid, domids)])
        guest.console = Console(terminal)
        if plan.side is not None:
            self._plug(plan.side, domid)
        self._write(wiring.arrival(plan, domid, self._plans, domids))
        guest.stage = Stage.PAUSED

    def _domids(self, besides: str = "") -> dict[str, int]:
        """Of those that are built and not dead."""
        return {
            name: guest.domid
            for name, guest in self._guests.items()
            if name != besides and guest.domid is not None and guest.stage is not Stage.CREATING and not guest.is_dead
        }

    def _own(self, path: str, domid: int) -> None:
        """What xl leaves to the guest in its home becomes dom0's, all of it."""
        self._store.set_permissions(path, wiring.reads(domid))
        for entry in self._store.directory(path):
            self._own(f"{path}/{entry}", domid)

    def _write(self, changes: Iterable[tuple[int, wiring.Node]]) -> None:
        """Values and permissions, in this order of nodes. A peer that is just going takes its home with it."""
        for domid, node in changes:
            path = f"{self._store.home(domid)}/{node.path}"
            try:
                self._store.write(path, node.value)
                self._store.set_permissions(path, node.permissions)
            except OSError:
                if self._store.is_introduced(domid):
                    raise

    def _plug(self, side: Side, domid: int) -> None:
        """The other end of its interface goes into its bridge, and netback is told so, as a script would. Of its own
        end the guest writes what a front end writes.
        """
        for leaf in wiring.NETFRONT:
            path = f"{self._store.home(domid)}/{leaf}"
            if self._store.read(path) is None:
                self._store.write(path, "")
            self._store.set_permissions(path, wiring.writes(domid))
        bridges.join(side.bridge, domid)
        self._store.write(f"/local/domain/0/backend/vif/{domid}/0/hotplug-status", _CONNECTED)

    def _let_go(self, name: str, guest: Guest) -> None:
        try:
            assert guest.domid is not None
            self._xl.unpause(guest.domid)
            guest.stage = Stage.LET_GO
        except _FAILURES as error:
            guest.dies(f"could not be let go: {error}")

    # watching -------------------------------------------------------------------------------------------------------

    def _listen(self, name: str, guest: Guest) -> None:
        """A look at what it says. The journal's domain speaks for the log, printable characters only."""
        assert guest.console is not None
        untrusted = guest.console.look()
        if untrusted and "journal" in self._plans[name].domain.role.devices:
            with suppress(OSError):
                os.write(self._journal, printable(untrusted.replace(b"\r", b"")).encode())

    def _mourn(self) -> None:
        """Who has died since the last look: whom the xenstore knows no more, and whom xl says has ended."""
        self._store.hear()
        if self._store.events:
            self._store.events.clear()
            # A watch speaks once when it is set: then nobody is there yet
            self._somebody_died |= any(guest.domid is not None for guest in self._guests.values())
        if self._somebody_died and self._listing is None:
            for guest in self._guests.values():
                if guest.domid is not None and not self._store.is_introduced(guest.domid):
                    guest.dies("is gone")
            try:
                self._listing = self._xl.listing()
            except OSError:  # no memory, no process: at the next look again
                return
            self._news.register(self._listing.fileno(), select.EPOLLIN)
            self._somebody_died = False
        self._hear_who_ended()

    def _hear_who_ended(self) -> None:
        if self._listing is None:
            return
        if self._listing.is_late:
            self._listing.end()
            self._log(WARNING, "`xl list` hangs and was ended: whether a domain has ended is asked again")
            self._listing, self._somebody_died = None, True
        elif self._listing.is_over:
            job, self._listing = self._listing, None
            try:
                over = {row.domid for row in rows(job.wait()) if row.is_over}
            except OSError:  # that is no reason to end the box: at the next look again
                self._somebody_died = True
                return
            for guest in self._guests.values():
                if guest.domid in over:
                    guest.dies("has ended")

    def check(self, name: str) -> list[str]:
        """Looks from outside whether ``name`` is sealed as planned."""
        guest = self._guests[name]
        try:
            rows = self.evidence(name)
        except _FAILURES as error:
            return [f"its seal cannot be read: {error}"]
        return [f"{row.attribute}: {row.seen}, not {row.wanted}" for row in rows if not row.ok] if guest.domid else []

    def evidence(self, name: str) -> list[seals.Row]:
        """The seal of a living ``name``, attribute by attribute. Errors: OSError, ValueError."""
        guest = self._guests[name]
        assert guest.domid is not None
        wanted = seals.wanted(self._plans[name], guest.memory_mib)
        return seals.compare(wanted, self._seals.seen(guest.domid, self._store, self._domids().values()))

    def release(self, name: str) -> None:
        guest = self._guests[name]
        if guest.domid is not None and not guest.is_dead:
            self._store.write(f"{self._store.home(guest.domid)}/{wiring.GO}", "1")

    # the end of one -------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Ends it at once; ``bury`` does the rest."""
        self._guests[name].dies("was destroyed")

    def bury(self, name: str) -> str:
        guest = self._guests.pop(name)
        untrusted_words = b""
        with ExitStack() as stack:  # each step, whatever becomes of those before it
            stack.callback(guest.close)
            remains = Remains(self._plans[name].title, guest.uuid, guest.domid, guest.job)
            stack.callback(self._burials.add, name, remains, time.monotonic())
            stack.callback(guest.status.close)
            if self._disk is not None and name in self._disks:
                self._disk.tell(NOWHERE)  # which lets its pages go
            if self._told is not None and name == self._speaker:
                stack.callback(self._told.close)
            with suppress(OSError):  # it is just going
                if guest.domid is not None and self._store.is_introduced(guest.domid):
                    self._xl.pause(guest.domid)  # whoever was accused does nothing more, however long xl takes
            if guest.console is not None:
                guest.console.drain()
                untrusted_words = guest.console.untrusted_words
        return "\n  ".join([guest.why or "is gone", *_last_lines(untrusted_words)])

    def reset(self, name: str) -> None:
        self._write(wiring.departure(self._plans[name], self._domids(besides=name)))

    def all_wait(self, name: str, survivors: Iterable[str]) -> bool:
        """At once: a new life has new pages, and no peer can take the old ones for them."""
        return True

    # looking --------------------------------------------------------------------------------------------------------

    @property
    def living(self) -> tuple[str, ...]:
        return tuple(name for name, guest in self._guests.items() if not guest.is_dead)

    def report(self, name: str) -> Report:
        guest = self._guests[name]
        now = time.monotonic()
        # A look at a page costs nothing, but to ask the xenstore where it is takes dom0's processor from who starts
        if not guest.status.is_mapped and guest.stage is Stage.LET_GO and now >= guest.ask_again:
            guest.ask_again = now + self._rest
            assert guest.domid is not None
            try:
                untrusted = self._store.read(f"{self._store.home(guest.domid)}/{wiring.STATUS}")
                found = references(untrusted or "", guest.status.pages)
                if found is not None:
                    guest.status.map(guest.domid, found)
            except _FAILURES as error:
                guest.dies(str(error))
        return guest.status.report()

    def describe(self, name: str) -> dict[str, Any]:
        plan, guest = self._plans[name], self._guests.get(name)
        role = plan.domain.role
        found: dict[str, Any] = {
            "name": name,
            "component": role.component,
            "role": role.name,
            "summary": role.summary,
            "clearance": sorted(role.clearance),
            "memory_mib": self._images[name].memory_mib,
            "seal": seals.wanted(plan, self._images[name].memory_mib),
            "image_sha256": self._images[name].ramdisk_sha256,
            "kernel_sha256": self._images[name].kernel_sha256,
            "pid": None,
            "domid": None,
            "type": plan.type,
            "label": plan.label,
            "uptime": None,
            "counters": {},
            "pss_kib": None,
            "sealed": None,
        }
        if self._disk is not None and name in self._disks:
            found["disk"] = self._disk.describe()
        if guest is not None and guest.domid is not None:
            found["domid"] = guest.domid
            found["uptime"] = time.monotonic() - guest.started
            found["counters"] = guest.status.counters(role.counters)
            found["sealed"] = guest.status.sealed()._asdict()
        return found

    def peers(self, name: str, count: int) -> list[PeerRow | None]:
        guest = self._guests.get(name)
        return [None] * count if guest is None else guest.status.rows(count)

    # who is outside -------------------------------------------------------------------------------------------------

    def lend(self, port: str) -> Lent | None:
        """Where the tool that holds the operator's end next meets the domain, as a client in dom0; None if this box
        has no such end. Errors: Away.
        """
        for place, channel in enumerate(self._channels):
            if channel.client == End(OPERATOR, port):
                server = channel.server.domain
                domid = self._domids().get(server)
                if domid is None:
                    raise Away(f"{server} is being built")
                return Lent(server, channel.schema, place=(domid, place))
        return None

    def hang_up(self, port: str) -> None:
        """Nothing: who held it lets the guest's pages go, or Linux does it for him and tells the guest."""

    def replace_setting(self, domain: str, name: str, untrusted_fd: int) -> None:
        """Later lives of ``domain`` get what is in this memfd as the JSON of setting ``name``. It is copied unread.

        Errors: ValueError saying what is wrong with it; OSError.
        """
        most = min(replaced.MOST, (self._images[domain].memory_mib << 20) // _SHARE_OF_A_SETTING)
        size = replaced.size_of(untrusted_fd, most)
        self._replaced[domain] = replaced.mark(name) + os.pread(untrusted_fd, size, 0)

    # the end of all -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        nobody_is_left = False
        try:
            with ExitStack() as stack:
                for name in tuple(self._guests):
                    stack.callback(self.bury, name)
            nobody_is_left = self._burials.close()
        finally:
            if self._listing is not None:
                self._listing.end()
            if self._disk is not None:
                self._disk.close()
            os.close(self._grants)
            for fd in self._kernels.values():
                os.close(fd)
            self._news.close()
            self._xl.close()
            self._store.close()
        if nobody_is_left:
            (self._directory / GUESTS).unlink(missing_ok=True)


def _content(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode()


def describe(plan: Plan, identity: str = "") -> bytes:
    """The boot description (docs/xen.md). The settings may hold secrets and are put in as the bytes they are.

    ``identity`` is for the domain that holds that device.
    """
    role = plan.domain.role
    described: dict[str, Any] = {
        "domain": plan.domain.name,
        "role": role.name,
        "component": role.component,
        "main": role.main,
        "imports": role.imports,
        "ports": [
            {"port": one.port, "peer": one.peer, "schema": one.schema, "end": one.end, "channel": one.number}
            for one in plan.links
        ],
        "devices": role.devices,
        "counters": role.counters,
        "status_pages": plan.status_pages,
        "seal": {"syscalls": role.syscalls, "memory_mib": plan.domain.memory_mib, "descriptors": role.descriptors},
    }
    if "identity" in role.devices:
        described["identity"] = identity
    if plan.side is not None:
        described["network"] = plan.side.settings
    head = json.dumps(described).encode()
    return b"".join([head[:-1], b', "settings": ', to_json(plan.domain), b"}"])


def _last_lines(untrusted_words: bytes) -> list[str]:
    return [line for line in printable(untrusted_words.replace(b"\r", b"")).splitlines() if line.strip()][-24:]


def _record(directory: Path, titles: list[str]) -> None:
    new = directory / f"{GUESTS}.new"
    new.write_text(json.dumps(titles))
    new.replace(directory / GUESTS)


def recover(directory: Path) -> None:
    """Destroys them. The caller holds the box's lock. Errors: OSError."""
    titles = set(json.loads((directory / GUESTS).read_text()))
    xl = Xl()
    for row in xl.list():
        if row.name in titles:
            with suppress(XlError):
                xl.run("destroy", str(row.domid))
    left = sorted(row.name for row in xl.list() if row.name in titles)
    if left:
        raise XlError(f"these guests cannot be destroyed: {', '.join(left)}")
    (directory / GUESTS).unlink()
