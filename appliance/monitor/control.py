"""The monitor's one ear: a Unix socket in the box's run directory. One line of JSON is asked, one line answered.

Only the user the monitor runs as, and root, are heard. A client gets one answer, has two seconds for its question and
two to take the answer, which is sent as far as there is room: nobody can make the monitor wait.

One question is answered with descriptors: ``borrow`` lends the operator's end of a channel for as long as the
connection lasts (of a channel to a Xen guest, the place to meet it at). Who holds it asks a domain itself, and the
monitor only one thing more: to ``keep`` a setting.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from appliance.monitor.places import PlaceError, checked_name, run_base, run_dir

SOCKET: Final = "control"
LOCK: Final = "lock"
GUESTS: Final = "xen.json"  # the names of a box's Xen guests, as long as there may be any (xen/backend.py)

_LONGEST_REQUEST: Final = 4096
_LONGEST_REPLY: Final = 1 << 26  # bytes: tens of thousands of peers
_MOST_CLIENTS: Final = 16
_PATIENCE: Final = 2.0  # seconds
_LOOK: Final = 0.5  # of them that pass between two looks at most: the monitor may have been asleep or busy itself
_SEND_BUFFER: Final = 1 << 18
_DOWN_PATIENCE: Final = 30.0
_NEVER: Final = float("inf")

Json = dict[str, Any]


class ControlError(Exception):
    """The box cannot be asked, or refuses; the text says why."""


class Watch(Protocol):
    """Calls ``callback`` whenever ``fd`` is ready for one of ``events`` (select.EPOLL*)."""

    def __call__(self, fd: int, callback: Callable[[], None], events: int = select.EPOLLIN) -> None: ...


class Lender(Protocol):
    """Has the operator's ends of channels (lending.py)."""

    def borrow(self, port: str, pid: int) -> tuple[Json, tuple[int, ...]]:
        """The answer, and the descriptors that go with it. It is lent unless there is an "error" in it."""

    def keep(self, port: str, untrusted_fd: int) -> Json:
        """What ``untrusted_fd`` holds is for later lives of the domain at the other end."""

    def give_back(self, port: str) -> None: ...


class _Client:
    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.connection = connection
        self.pid = pid
        self.holds: str | None = None  # the operator's end that it has borrowed
        self.descriptor: int | None = None  # the last that it has sent
        self.lent: tuple[int, ...] = ()  # to be sent with the reply
        self.begin()

    def begin(self) -> None:
        """It may ask; who holds an end, whenever it likes."""
        self.left = _PATIENCE if self.holds is None else _NEVER
        self.untrusted_request = b""
        self.reply = memoryview(b"")  # what is left of it

    def take_descriptor(self) -> int | None:
        """The descriptor that came last, the caller's to close."""
        taken, self.descriptor = self.descriptor, None
        return taken

    def close(self) -> None:
        self.connection.close()
        if (left := self.take_descriptor()) is not None:
            os.close(left)


class ControlServer:
    """Answers questions with ``operations[op]()``, and those about the operator's ends with ``lender``. ``watch`` and
    ``forget(fd)``: the caller's poller.
    """

    def __init__(
        self,
        path: Path,
        operations: dict[str, Callable[[], Json]],
        watch: Watch,
        forget: Callable[[int], None],
        lender: Lender | None = None,
    ) -> None:
        self._lender = lender
        self._path = path
        self._operations = operations
        self._watch = watch
        self._forget = forget
        self._clients: dict[int, _Client] = {}
        self._looked = time.monotonic()
        path.unlink(missing_ok=True)  # the caller holds the box's lock, so this is a dead monitor's
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(path))
        finally:
            os.umask(before)
        self._socket.listen(_MOST_CLIENTS)
        watch(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return  # it has gone again
        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()) or len(self._clients) >= _MOST_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        fd = connection.fileno()
        self._clients[fd] = _Client(connection, pid)
        self._watch(fd, lambda: self._readable(fd))

    def _readable(self, fd: int) -> None:
        client = self._clients[fd]
        try:
            data, descriptors, *_ = socket.recv_fds(client.connection, _LONGEST_REQUEST, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            if (earlier := client.take_descriptor()) is not None:
                os.close(earlier)
            client.descriptor = descriptor
        client.untrusted_request += data
        if not data or len(client.untrusted_request) > _LONGEST_REQUEST:
            self._drop(fd)
        elif b"\n" in client.untrusted_request:
            client.reply = memoryview(json.dumps(self._answer(client)).encode() + b"\n")
            client.left = _PATIENCE
            self._forget(fd)
            self._watch(fd, lambda: self._writable(fd), select.EPOLLOUT)
            self._writable(fd)  # at once: the answer to "down" is the last that is done here

    def _writable(self, fd: int) -> None:
        client = self._clients[fd]
        try:
            if client.lent:  # they go with the first byte
                sent = socket.send_fds(client.connection, [client.reply], client.lent)
                client.lent = ()
            else:
                sent = client.connection.send(client.reply)
        except BlockingIOError:
            return
        except OSError:
            self._drop(fd)
            return
        client.reply = client.reply[sent:]
        if client.reply:
            return
        if client.holds is None:
            self._drop(fd)
        else:
            client.begin()
            self._forget(fd)
            self._watch(fd, lambda: self._readable(fd))

    def _answer(self, client: _Client) -> Json:
        try:
            question = json.loads(client.untrusted_request.split(b"\n", 1)[0])
        except (ValueError, RecursionError):
            return {"error": "the request is not a line of JSON"}
        operation = question.get("op") if isinstance(question, dict) else None
        if operation == "keep" and client.holds is not None and self._lender is not None:
            return self._keep(client, client.holds, self._lender)
        if operation == "borrow" and client.holds is None and self._lender is not None:
            return self._borrow(client, question.get("port"), self._lender)
        if not isinstance(operation, str) or operation not in self._operations:
            return {"error": f"there is no such operation; there are: {', '.join(sorted(self._operations))}"}
        return self._operations[operation]()

    def _borrow(self, client: _Client, untrusted_port: object, lender: Lender) -> Json:
        if not isinstance(untrusted_port, str):
            return {"error": "which port?"}
        answer, client.lent = lender.borrow(untrusted_port, client.pid)
        if "error" not in answer:
            client.holds = untrusted_port
        return answer

    def _keep(self, client: _Client, port: str, lender: Lender) -> Json:
        descriptor = client.take_descriptor()
        if descriptor is None:
            return {"error": "there is no descriptor with it"}
        try:
            return lender.keep(port, descriptor)
        finally:
            os.close(descriptor)

    def _drop(self, fd: int) -> None:
        self._forget(fd)
        client = self._clients.pop(fd)
        client.close()
        if client.holds is not None and self._lender is not None:
            self._lender.give_back(client.holds)

    def hang_up(self, port: str) -> None:
        """Ends the connection of whoever holds the operator's end of that name."""
        for fd in [fd for fd, client in self._clients.items() if client.holds == port]:
            self._drop(fd)

    def tick(self, now: float) -> None:
        """Drops the clients whose time is over."""
        elapsed, self._looked = min(now - self._looked, _LOOK), now
        for fd, client in list(self._clients.items()):
            client.left -= elapsed
            if client.left < 0:
                self._drop(fd)

    def close(self) -> None:
        for fd in list(self._clients):
            self._drop(fd)
        self._forget(self._socket.fileno())
        self._socket.close()
        self._path.unlink(missing_ok=True)


# the other side: what the command line uses


def request(name: str, operation: str) -> Json:
    """Asks the box called ``name``. Errors: ControlError."""
    with ExitStack() as stack:
        connection = _connect(name, stack)
        try:
            connection.sendall(_line({"op": operation}))
            reply = _take_line(connection)
        except OSError as error:
            raise ControlError(f"{name} does not answer: {error}") from None
    return _checked(name, reply)


def _connect(name: str, stack: ExitStack) -> socket.socket:
    connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    connection.settimeout(10)
    try:
        connection.connect(str(_directory(name) / SOCKET))
    except PermissionError:
        raise ControlError(_not_yours(name)) from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlError(f"{name} is not running") from None
    except OSError as error:
        raise ControlError(f"{name} does not answer: {error}") from None
    return connection


def _take_line(connection: socket.socket) -> bytes:
    reply = bytearray()
    while not reply.endswith(b"\n") and len(reply) <= _LONGEST_REPLY:
        piece = connection.recv(1 << 16)
        if not piece:
            break
        reply += piece
    return bytes(reply)


def _checked(name: str, reply: bytes) -> Json:
    """The answer in ``reply``. Errors: ControlError."""
    if not reply.endswith(b"\n"):
        raise ControlError(f"{name} hung up without an answer")
    answer = json.loads(reply)
    if "error" in answer:
        kind = next((kind for word, kind in _KINDS.items() if answer.get(word)), ControlError)
        raise kind(f"{name}: {answer['error']}")
    return dict(answer)


class Busy(ControlError):
    """Somebody else has borrowed it."""


class Unjoined(ControlError):
    """The assembly joins that end to nothing."""


class Away(ControlError):
    """The domain at the other end is not there now."""


_KINDS: Final[dict[str, type[ControlError]]] = {"busy": Busy, "unjoined": Unjoined, "away": Away}


class Loan:
    """The operator's end of a channel, borrowed for as long as this object is not closed. ``descriptors``: memory, the
    event to wait on, the event to notify; or else ``place``: the number of the guest, and of the channel. The
    connection (``fileno``) ends when the monitor takes the end back.
    """

    def __init__(self, name: str, connection: socket.socket, answer: Json, descriptors: tuple[int, ...]) -> None:
        self.box = name
        self.schema = str(answer["schema"])
        self.domain = str(answer["domain"])
        place = answer.get("place")
        self.place: tuple[int, int] | None = (int(place[0]), int(place[1])) if place is not None else None
        self.descriptors = descriptors
        self._connection = connection

    def fileno(self) -> int:
        return self._connection.fileno()

    def is_over(self) -> bool:
        """Whether the monitor has taken the end back. It says nothing that it is not asked."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(0))

    def keep(self, fd: int) -> None:
        """Later lives of the domain get what this sealed memfd holds. Errors: ControlError."""
        try:
            socket.send_fds(self._connection, [_line({"op": "keep"})], [fd])
            reply = _take_line(self._connection)
        except OSError as error:
            raise ControlError(f"{self.box} does not answer: {error}") from None
        _checked(self.box, reply)

    def close(self) -> None:
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = ()
        self._connection.close()


def borrow(name: str, port: str) -> Loan:
    """The operator's end ``port`` of the box called ``name``. Errors: Busy; Unjoined; ControlError."""
    with ExitStack() as stack:
        connection = _connect(name, stack)
        try:
            connection.sendall(_line({"op": "borrow", "port": port}))
            reply, descriptors, *_ = socket.recv_fds(connection, 1 << 16, 3, socket.MSG_CMSG_CLOEXEC)
            for fd in descriptors:
                stack.callback(os.close, fd)
            if reply and not reply.endswith(b"\n"):
                reply += _take_line(connection)
        except OSError as error:
            raise ControlError(f"{name} does not answer: {error}") from None
        loan = Loan(name, connection, _checked(name, reply), tuple(descriptors))
        stack.pop_all()
        return loan


def _line(question: Json) -> bytes:
    return json.dumps(question).encode() + b"\n"


def _not_yours(name: str) -> str:
    return f"{name} is not yours to ask: run as root"


def list_boxes() -> list[str]:
    """The boxes that are up, and those that a killed monitor has left behind (for which `septum down` is due).

    One of another user's is among them too: what is asked of it then says whose it is.
    """
    try:
        return sorted(entry.name for entry in run_base().iterdir() if _may_be_box(entry))
    except (OSError, PlaceError):
        return []


def _may_be_box(directory: Path) -> bool:
    try:
        return (directory / LOCK).exists()
    except PermissionError:
        return True


def down_and_wait(name: str) -> None:
    """Takes the box down and returns when it is: also one whose monitor was killed. Errors: ControlError."""
    from appliance.monitor.network import NetworkError

    directory = _directory(name)
    try:
        is_there = (directory / LOCK).exists()
    except PermissionError:
        raise ControlError(_not_yours(name)) from None
    if not is_there:
        raise ControlError(f"no box named {name} is up")
    lock = try_lock(directory)
    if lock is None:
        request(name, "down")
        until = time.monotonic() + _DOWN_PATIENCE
        while (lock := try_lock(directory)) is None:
            if time.monotonic() > until:
                raise ControlError(f"{name} was told to go down and is still there after {_DOWN_PATIENCE:g} s")
            time.sleep(0.01)
    try:
        clean(directory)
    except NetworkError as error:
        raise ControlError(f"{name}: {error}") from None
    finally:
        unlock(directory, lock)


def _directory(name: str) -> Path:
    try:
        return run_dir(checked_name(name))
    except (ValueError, PlaceError) as error:
        raise ControlError(str(error)) from None


# the lock: whoever holds it is the box's monitor, or cleans up after one


def try_lock(directory: Path) -> int | None:
    """The lock of a box's run directory, which must exist; None if somebody has it. It ends with the process."""
    while True:
        directory.mkdir(mode=0o700, exist_ok=True)
        try:
            fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # who had it has just removed the directory
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it may have removed the file before letting go: then this is a lock on nothing
            if os.stat(directory / LOCK).st_ino == os.fstat(fd).st_ino:
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        os.close(fd)


def clean(directory: Path) -> None:
    """Undoes what a killed monitor has left in ``directory``, whose lock the caller has. Errors: NetworkError."""
    from appliance.monitor import network

    if (directory / GUESTS).exists():
        from appliance.monitor.xen.backend import recover

        try:
            recover(directory)  # first: a guest holds its interface
        except OSError as error:
            raise network.NetworkError(str(error)) from None
    if network.is_left_over(directory):
        network.recover(directory)
    (directory / SOCKET).unlink(missing_ok=True)


def is_left_over(directory: Path) -> bool:
    """Whether a monitor that was killed left something to be undone here."""
    from appliance.monitor import network

    return (directory / GUESTS).exists() or network.is_left_over(directory)


def unlock(directory: Path, lock: int) -> None:
    """Lets go of the lock, and removes the directory if nothing is left in it that is still needed."""
    if not is_left_over(directory):
        (directory / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # somebody else's file, or a new monitor's: not ours to remove
            directory.rmdir()
    os.close(lock)
