"""What is left of lives that have ended: an xl that is still at one, and the guest itself until it is destroyed.

None of it is waited for. An xl may hang, on a backend that does not answer or a xenstore that is busy; while one does,
the other domains are watched, and built anew. So it is ended after some seconds, said so, and begun again, until the
guest is gone. Meanwhile the guest is paused: it does nothing any more, and its domain's next life waits.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from appliance.monitor.notify import CRITICAL, WARNING

_FIRST_REST: Final = 1.0  # seconds between two attempts; doubled each time
_LONGEST_REST: Final = 60.0
_LOOK: Final = 250  # milliseconds
_ATTEMPTS: Final = 3  # when the box is closed, and nobody will try again


class Job(Protocol):
    """An xl that goes on by itself (xl.py)."""

    def fileno(self) -> int: ...
    @property
    def is_over(self) -> bool: ...
    @property
    def is_late(self) -> bool: ...
    def hurry(self) -> None: ...
    def end(self) -> None: ...
    def wait(self) -> str: ...


class Store(Protocol):
    """What is asked of the xenstore."""

    def home(self, domid: int) -> str: ...
    def read(self, path: str) -> str | None: ...
    def directory(self, path: str) -> list[str]: ...
    def remove(self, path: str) -> None: ...
    def is_introduced(self, domid: int) -> bool: ...


class Remains(NamedTuple):
    """Of one life. ``domid`` is None while ``creating``, the xl that makes the guest, has not come so far."""

    title: str
    uuid: str
    domid: int | None
    creating: Job | None = None


def domid_of(store: Store, uuid: str) -> int | None:
    """The guest that was made under this UUID, if the xenstore knows it. Errors: OSError."""
    for entry in store.directory("/local/domain"):
        if store.read(f"/local/domain/{entry}/vm") == f"/vm/{uuid}":
            return int(entry)
    return None


class _Burial:
    def __init__(self, name: str, remains: Remains) -> None:
        self.name = name
        self.title, self.uuid, self.domid, self.job = remains
        self.is_creating = self.job is not None
        self.attempts = 0  # that failed
        self.not_before = 0.0
        if self.job is not None:
            self.job.hurry()

    def fails(self, now: float) -> None:
        self.job = None
        self.is_creating = False
        self.not_before = now + min(_LONGEST_REST, _FIRST_REST * 2.0 ** min(self.attempts, 32))
        self.attempts += 1


class Burials:
    """Those of a box: a domain's next life waits until its name is not among them any more. There may be several of one
    name, since a life that waited for too long is buried too.

    ``destroy`` starts an xl for a guest's number. ``watch`` is called with a descriptor that is readable when there is
    something to do, and closed once that is done. ``log(priority, text)``.
    """

    def __init__(
        self,
        destroy: Callable[[int], Job],
        store: Store,
        watch: Callable[[int], None],
        log: Callable[[int, str], None],
    ) -> None:
        self._destroy = destroy
        self._store = store
        self._watch = watch
        self._log = log
        self._burials: list[_Burial] = []

    def __contains__(self, name: str) -> bool:
        return any(burial.name == name for burial in self._burials)

    @property
    def is_creating(self) -> bool:
        """An xl still makes a guest that nobody wants any more."""
        return any(burial.is_creating for burial in self._burials)

    def add(self, name: str, remains: Remains, now: float) -> None:
        self._burials.append(_Burial(name, remains))
        self.turn(now)

    def turn(self, now: float) -> None:
        """Goes on with all of them, as far as that takes no waiting."""
        for burial in tuple(self._burials):
            try:
                is_done = self._go_on(burial, now)
            except (OSError, ValueError) as error:
                burial.fails(now)
                self._log(WARNING, f"{burial.title} cannot be destroyed yet: {error}; it is tried again")
            else:
                if is_done:
                    self._burials.remove(burial)

    def _go_on(self, burial: _Burial, now: float) -> bool:
        """Whether the guest is gone. Errors: OSError."""
        while burial.job is not None or self._is_left(burial):
            if burial.job is None:
                if now < burial.not_before:
                    return False
                assert burial.domid is not None
                burial.job = self._destroy(burial.domid)
                self._watch(burial.job.fileno())
            if burial.job.is_late:
                burial.job.end()
                raise TimeoutError("an xl hangs, and was ended")
            if not burial.job.is_over:
                return False
            job, burial.job = burial.job, None
            if burial.is_creating:
                burial.is_creating = False
                with suppress(OSError):  # what it has made nevertheless goes the usual way
                    job.wait()
            else:
                self._is_destroyed(burial, job)
                self._clear(burial.domid)
                return True
        return True

    def _is_destroyed(self, burial: _Burial, job: Job) -> None:
        """Errors: OSError if it is not."""
        assert burial.domid is not None
        try:
            job.wait()
        except OSError:
            if self._store.is_introduced(burial.domid):
                raise
            # Somebody else was quicker, or an xl that was ended has done half of it
            self._store.remove(self._store.home(burial.domid))

    def _is_left(self, burial: _Burial) -> bool:
        """Whether there is something to destroy."""
        if burial.domid is None:
            burial.domid = domid_of(self._store, burial.uuid)
        if burial.domid is None:
            return False
        home = self._store.home(burial.domid)
        if self._store.is_introduced(burial.domid) or self._store.read(f"{home}/vm") == f"/vm/{burial.uuid}":
            return True
        self._clear(burial.domid)
        return False

    def _clear(self, domid: int | None) -> None:
        """Whoever destroys a guest takes its home away first; what we wrote before we heard of it made another."""
        if domid is not None and self._store.read(f"{self._store.home(domid)}/name") is None:
            self._store.remove(self._store.home(domid))

    def close(self) -> bool:
        """Goes on until all are gone, or the same one could not be destroyed a few times. Whether nobody is left."""
        while any(burial.attempts < _ATTEMPTS for burial in self._burials):
            poll = select.poll()
            for burial in self._burials:
                if burial.job is not None:
                    poll.register(burial.job.fileno(), select.POLLIN)
            poll.poll(_LOOK)
            self.turn(time.monotonic())
        for burial in self._burials:
            self._log(CRITICAL, f"{burial.title} is left behind: xl list shows it, xl destroy ends it")
            if burial.job is not None:
                burial.job.end()
        return not self._burials
