"""`wg` on the box: a socket where it looks for one, and behind it a client of the box's admin service like any other.

What `wg set` asks for is signed with this administrator's key and committed; so whoever may write to the socket may do
what that administrator may, and taking the socket away (ending this process, revoking its administrator) takes no more.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from appliance.ctl import reach, say, uapi
from appliance.ctl.trouble import Exit, Trouble
from appliance.ctl.uapi import Standing, UapiError

FOLDER: Final = Path("/var/run/wireguard")
"""Where wg(8) looks for the sockets of userspace implementations."""

_INTERFACE: Final = re.compile(r"[A-Za-z0-9_=+.-]{1,15}")
_PATIENCE: Final = 10.0  # seconds for one message to come, or to be taken
_ATTEMPTS: Final = 8  # of a commit that others were faster than

_ERRNO: Final = {
    Exit.NOT_ALLOWED: errno.EPERM,
    Exit.INVALID: errno.EINVAL,
    Exit.OVERTAKEN: errno.EBUSY,
    Exit.UNREACHED: errno.ENETUNREACH,
    Exit.NOT_BELIEVED: errno.EKEYREJECTED,
}


def serve(
    interface: Annotated[str, typer.Argument(help="What `wg` is to call it; the name of the tunnel.")],
    folder: Annotated[Path, typer.Option(help="Where the socket is made.")] = FOLDER,
) -> None:
    """Let `wg show`, `wg set` and `wg syncconf` work on the box: answers at /var/run/wireguard/INTERFACE.sock.

    Run it on the box, as an administrator of its own: `septumctl admins invite wg --role operator`, then enroll here.
    Each change is a signed commit of that administrator. Private and preshared keys cannot be read; the private key,
    the port and the mark cannot be changed.
    """
    if not _INTERFACE.fullmatch(interface):
        raise Trouble(Exit.USAGE, f"{interface!r} is no name for an interface: 15 letters, digits or '_=+.-' at most")
    from appliance.ctl.connection import Box

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    with Box(reach.the_context(), reach.deadline()) as box, _listening(folder / f"{interface}.sock") as listener:
        adapter = Adapter(box)
        adapter.standing()  # says at once what is wrong with the way to the box
        say.note(f"wg show {interface} works from here on; to end it: Ctrl-C")
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(_PATIENCE)
                _converse(connection, adapter.answer)


def _end(*_: object) -> None:
    raise SystemExit(0)


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket at ``path`` that only root may write to. Errors: Trouble."""
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o077)
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise Trouble(Exit.REFUSED, f"{path}: {error.strerror}", "as root, or --folder with one of your own") from None
    finally:
        os.umask(before)
    made = path.stat()
    listener.listen(16)
    try:
        yield listener
    finally:
        listener.close()
        if path.exists() and path.stat().st_ino == made.st_ino:
            path.unlink()


def _clear(path: Path) -> None:
    """Takes away a socket that nobody listens at. Errors: Trouble if somebody does, or it is something else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Trouble(Exit.REFUSED, f"{path} is there and no socket", f"look at it, and take it away: {path}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink()
        return
    except OSError as error:
        raise Trouble(Exit.REFUSED, f"{path}: {error.strerror}", "as root") from None
    raise Trouble(Exit.REFUSED, f"somebody answers at {path} already", "wg show interfaces; end that one first")


def _converse(connection: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    """Messages and answers until the other end has enough, or takes too long."""
    received = bytearray()
    with_patience = time.monotonic() + _PATIENCE
    try:
        while piece := connection.recv(1 << 16):
            received += piece
            if len(received) > uapi.LARGEST or time.monotonic() > with_patience:
                return
            if uapi.is_whole(received):
                connection.sendall(answer(bytes(received)))
                received.clear()
                with_patience = time.monotonic() + _PATIENCE
    except OSError:
        return  # it has gone, or does not listen


class Adapter:
    """Answers messages by asking ``box``."""

    def __init__(self, box: Any) -> None:
        self._box = box

    def answer(self, untrusted: bytes) -> bytes:
        """The whole answer to one message; what went wrong is said on standard error."""
        try:
            change = uapi.read(untrusted)
            if change is None:
                return uapi.told(self.standing(), self._box.everybody())
            self._carry_out(change)
            return uapi.answer(0)
        except UapiError as error:
            print(f"septumctl: {error}", file=sys.stderr)
            return uapi.answer(error.number)
        except Trouble as trouble:
            for place in trouble.places:
                print(f"  {place.path}: {place.why}", file=sys.stderr)
            print(f"septumctl: {trouble}{f' (try: {trouble.then})' if trouble.then else ''}", file=sys.stderr)
            return uapi.answer(_ERRNO.get(trouble.code, errno.EIO))

    def standing(self) -> Standing:
        """Errors: Trouble."""
        import base64

        from septum.admin.v1 import admin_pb2 as pb

        from appliance.ctl import sealing

        status = self._box.ask(self._box.box.GetStatus, pb.GetStatusRequest(), "the state of the box")
        return Standing(base64.b64decode(sealing.pinned(self._box).public_key), status.listen_port)

    def _carry_out(self, change: uapi.Change) -> None:
        """Commits it, on top of whatever is in force. Errors: UapiError, Trouble."""
        from appliance.ctl import candidate, chain, changing, sealing

        standing, seal = self.standing(), sealing.sealer(self._box)
        for attempt in range(_ATTEMPTS):
            known = chain.look(self._box)
            before = candidate.fetch(self._box, known.in_force)
            made = uapi.applied(change, before, standing, _public_of, seal)
            if made == before:
                return
            try:
                changing.commit(self._box, known, made, "wg")
                return
            except Trouble as trouble:
                if trouble.reason == "UNCHANGED":
                    return
                if trouble.reason != "STALE" or attempt == _ATTEMPTS - 1:
                    raise
                changing.rest(attempt)


def _public_of(private_key: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
