"""The monitor's program: ``run`` stays in the foreground (systemd), ``start_background`` returns once the box runs."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from appliance.assembly.model import ValidatedAssembly
from appliance.monitor import control, devices, notify
from appliance.monitor.backend import Maker, Place
from appliance.monitor.box import Box, BuildError
from appliance.monitor.network import BoxNetwork, NetworkError
from appliance.monitor.notify import ERROR, NOTICE, LogFile, Logger
from appliance.monitor.places import PlaceError, checked_name, is_system, make_private, run_base, state_base
from appliance.monitor.process import ProcessBackend
from appliance.monitor.sandbox.kernel import PR_SET_DUMPABLE, prctl
from appliance.monitor.sandbox.plan import FIRST_OUTER_ID

__all__ = ["BuildError", "run", "start_background"]

IDENTITY: Final = "management/identity.json"
"""In the state directory: what the admin domain shows callers and certifies them with (appliance/management)."""

_IDS_PER_BOX: Final = 256
_MOST_BOXES: Final = 256
_UP: Final = b"up"
_VARIABLES: Final = "SEPTUM_RUN_DIR and SEPTUM_STATE_DIR to directories of your own"


def run(
    assembly: ValidatedAssembly,
    *,
    name: str,
    backend: str = "process",
    ready: Callable[[], None] | None = None,
    chore: Callable[[], None] | None = None,
) -> int:
    """Builds the box, calls ``ready``, and supervises it until SIGTERM, SIGINT or `septum down`. Returns the exit code.

    ``backend`` is what the domains are built of: "process" or "xen".
    ``chore`` is called at every look at the box, a few times a second. Errors: BuildError, and what ``ready``
    raises (whom it tells may have gone); then nothing of the box is left.
    """
    _refuse_dumps()
    with ExitStack() as stack:
        journal = notify.open_log()
        stack.callback(os.close, journal)
        log = Logger(name, journal)
        directory, state = _own(run_base, name), _own(state_base, name)
        lock = control.try_lock(directory)
        if lock is None:
            raise BuildError(f"{name} is up already: septum down {name}")
        stack.callback(control.unlock, directory, lock)
        _clean(directory, log)
        held = {"store": _store(state), "journal": journal}
        stack.callback(os.close, held["store"])
        if "identity" in assembly.devices:
            held["identity"] = _identity(state, name)
            stack.callback(os.close, held["identity"])
        if assembly.network is None:
            raise BuildError(f"{assembly.name} has no [network]: it can be checked and drawn, not run")
        try:
            if backend == "xen":
                place, make = _on_xen(assembly, name, directory, _first_id(directory.parent, stack), log)
            else:
                place, make = _of_processes(assembly, directory, _first_id(directory.parent, stack))
        except (NetworkError, OSError) as error:
            raise BuildError(str(error)) from None
        box = Box(assembly, name, directory, place, make, devices=held, log=log)
        box.build()
        try:
            box.drop_privileges()
            notify.notify("READY=1")
            if ready is not None:
                ready()
            box.run(chore)
        finally:
            notify.notify("STOPPING=1")
            failed = _close(box, log)
        log(NOTICE, "down")
        return 1 if failed else 0


def _own(base: Callable[[], Path], name: str) -> Path:
    """The box's directory below ``base()``, made if it is not there. Errors: BuildError."""
    try:
        return make_private(base() / checked_name(name))
    except (ValueError, PlaceError) as error:
        raise BuildError(str(error)) from None
    except OSError as error:
        raise BuildError(f"{error.filename}: {error.strerror}: run as root, or set {_VARIABLES}") from None


def _of_processes(assembly: ValidatedAssembly, directory: Path, first_id: int | None) -> tuple[Place, Maker]:
    assert assembly.network is not None
    place = BoxNetwork(assembly.network, assembly.devices, directory)
    return place, lambda devices: ProcessBackend(assembly, devices, first_id)


def _on_xen(
    assembly: ValidatedAssembly, name: str, directory: Path, first_id: int | None, log: Logger
) -> tuple[Place, Maker]:
    # Only here: what runs guests is no part of the memory of a monitor that runs processes
    from appliance.monitor.xen.backend import XenBackend
    from appliance.monitor.xen.bridges import Bridges
    from appliance.monitor.xen.disk import DiskProcess
    from appliance.monitor.xen.fit import see_room
    from appliance.monitor.xen.images import boots_of

    assert assembly.network is not None
    images = boots_of(assembly)
    see_room(assembly, name)  # before an interface is taken
    place = Bridges(assembly.network, name, directory, assembly.devices)

    def make(devices: Mapping[str, int]) -> XenBackend:
        disk = DiskProcess(devices["store"], first_id, log) if "store" in assembly.devices else None
        return XenBackend(
            assembly, name, directory, images, place.sides, devices["journal"], disk=disk, devices=devices, log=log
        )

    return place, make


def _refuse_dumps() -> None:
    """A core of this process would hold keymgr's boot description."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # which domains inherit
    prctl(PR_SET_DUMPABLE, 0)  # the limit does not hold for a core that is piped to a program (core(5))


def _close(box: Box, log: Logger) -> bool:
    try:
        box.close()
    except NetworkError as error:
        log(ERROR, f"the network could not be brought back in full: {error}")
        return True
    return False


def _clean(directory: Path, log: Logger) -> None:
    if not control.is_left_over(directory):
        return
    log(NOTICE, "the last monitor was killed: bringing back what it had taken")
    try:
        control.clean(directory)
    except NetworkError as error:
        raise BuildError(f"what a killed monitor has left cannot be undone: {error}") from None


def _store(state: Path) -> int:
    try:
        return devices.open_store(state)
    except devices.DeviceError as error:
        raise BuildError(str(error)) from None


def _identity(state: Path, name: str) -> int:
    try:
        return devices.open_identity(state / IDENTITY)
    except devices.DeviceError as error:
        raise BuildError(f"{error}: septum init {name}") from None


def _first_id(base: Path, stack: ExitStack) -> int | None:
    """The first of the user ids of this box's domains, claimed by a lock so that no two boxes share one."""
    if not is_system():
        return None
    for block in range(_MOST_BOXES):
        fd = os.open(base / f".ids-{block}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        stack.callback(os.close, fd)
        return FIRST_OUTER_ID + block * _IDS_PER_BOX
    raise BuildError(f"{_MOST_BOXES} boxes are up already")


def start_background(assembly: ValidatedAssembly, *, name: str, backend: str = "process") -> int:
    """Builds the box in a process of its own and returns that monitor's pid once the box runs.

    The monitor logs to ``log`` in the box's state directory. Errors: BuildError with the reason.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _daemon(assembly, name, backend, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:
        word = pipe.read(1 << 16)
    if word == _UP:
        return pid
    os.waitpid(pid, 0)
    raise BuildError(word.decode("utf-8", "replace") or "the monitor died without a word")


def _daemon(assembly: ValidatedAssembly, name: str, backend: str, writer: int) -> None:
    status = 1
    try:
        os.setsid()
        log = LogFile(_own(state_base, name) / "log")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)

        def ready() -> None:
            os.write(writer, _UP)
            os.close(writer)

        os.chdir("/")
        status = run(assembly, name=name, backend=backend, ready=ready, chore=log.trim)
    except BaseException as error:
        try:
            os.write(writer, (str(error) or type(error).__name__).encode())
        except OSError:
            import traceback

            traceback.print_exc()
    finally:
        os._exit(status)
