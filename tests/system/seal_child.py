"""The other side of test_seal.py: a program that the monitor starts as a domain, which seals itself and misbehaves.

Its orders are JSON on fd 3: how to seal, and what to attempt. All it finds out it says on fd 2. An attempt is prepared
before the seal and is then one raw system call, so that nothing but the attempt itself can be what kills.
"""

from __future__ import annotations

import json
import os
import sys

ORDERS = json.loads(os.pread(3, 1 << 20, 0))
os.close(3)
sys.path.extend(ORDERS["path"])

import contextlib  # noqa: E402
import ctypes  # noqa: E402
import fcntl  # noqa: E402
import hashlib  # noqa: E402
import mmap  # noqa: E402
import resource  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import struct  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

from appliance.guest import lastwords  # noqa: E402
from appliance.monitor.sandbox import evidence, seccomp  # noqa: E402
from appliance.monitor.sandbox.kernel import PR_SET_DUMPABLE, call, prctl  # noqa: E402
from appliance.monitor.sandbox.plan import SealPlan, own_namespaces  # noqa: E402
from appliance.monitor.sandbox.seal import STEPS, Sealed, SealError, seal, take  # noqa: E402
from appliance.monitor.sandbox.syscalls import this_architecture  # noqa: E402
from appliance.monitor.spawn import Child, spawn  # noqa: E402

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000
NEWUSER, NEWPID, NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
ORDINARY_USER = 12345
KEPT_SOCKET = 9
AT_FDCWD = -100
PAGE = mmap.PAGESIZE
RW_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p

Attempt = Callable[[], int]


def say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


def raw(name: str, *arguments: Any) -> Attempt:
    """One system call, ready to be made; ``name`` may also be a number."""
    number = this_architecture().number(name) if isinstance(name, str) else name
    words = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_long(0) if a is None else a for a in arguments]
    return lambda: int(libc.syscall(ctypes.c_long(number), *words))


def sibling() -> int:
    """Another process in this pid namespace, in place of a domain next door."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid


def page(protection: int) -> int:
    return int(libc.mmap(None, ctypes.c_size_t(PAGE), protection, RW_ANONYMOUS, -1, ctypes.c_long(0)))


def on_sibling(name: str, *rest: Any, first: tuple[Any, ...] = ()) -> Callable[[], Attempt]:
    return lambda: raw(name, *first, sibling(), *rest)


def through_a_thread() -> Attempt:
    pid = sibling()
    return raw("tgkill", pid, pid, 0)


def reading_a_sibling(name: str) -> Callable[[], Attempt]:
    def make() -> Attempt:
        here = ctypes.create_string_buffer(8)
        vector = struct.pack("QQ", ctypes.addressof(here), 8)
        attempt = raw(name, sibling(), vector, 1, vector, 1, 0)
        return lambda: attempt() if here else 0  # the buffer lives as long as the attempt

    return make


def int80() -> Attempt:
    """getpid of the 32-bit table through the gate that 64-bit code can use too."""
    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20; int 0x80; ret
    where = page(7)
    ctypes.memmove(where, code, len(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(where)


def message() -> bytes:
    """A struct msghdr without an address and without data."""
    return bytes(56)


ATTEMPTS: dict[str, Callable[[], Attempt]] = {
    # files
    "open": lambda: raw("open", b"/etc/passwd", 0),
    "openat": lambda: raw("openat", AT_FDCWD, b"/etc/passwd", 0),
    "openat the root": lambda: raw("openat", AT_FDCWD, b"/", os.O_DIRECTORY),
    "openat2": lambda: raw("openat2", AT_FDCWD, b"/etc/passwd", bytes(24), 24),
    "stat": lambda: raw("newfstatat", AT_FDCWD, b"/etc/passwd", ctypes.create_string_buffer(256), 0),
    "chdir": lambda: raw("chdir", b"/etc"),
    "mkdir": lambda: raw("mkdirat", AT_FDCWD, b"/septum-was-here", 0o700),
    "name_to_handle_at": lambda: raw(
        "name_to_handle_at", AT_FDCWD, b"/", struct.pack("Ii128x", 128, 0), ctypes.byref(ctypes.c_int()), 0
    ),
    "open_by_handle_at": lambda: raw("open_by_handle_at", AT_FDCWD, struct.pack("Ii128x", 128, 1), 0),
    "memfd_create": lambda: raw("memfd_create", b"x", 0),
    "pipe2": lambda: raw("pipe2", ctypes.create_string_buffer(8), 0),
    "dup": lambda: raw("dup", 2),
    "fcntl": lambda: raw("fcntl", 2, fcntl.F_DUPFD, 0),
    "ioctl TIOCSTI": lambda: raw("ioctl", 0, 0x5412, b"x"),
    "inotify_init1": lambda: raw("inotify_init1", 0),
    # the network
    "socket inet": lambda: raw("socket", socket.AF_INET, socket.SOCK_DGRAM, 0),
    "socket unix": lambda: raw("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0),
    "socket netlink": lambda: raw("socket", socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "socket packet": lambda: raw("socket", socket.AF_PACKET, socket.SOCK_RAW, 0),
    "socketpair": lambda: raw("socketpair", socket.AF_UNIX, socket.SOCK_STREAM, 0, ctypes.create_string_buffer(8)),
    "connect": lambda: raw("connect", KEPT_SOCKET, struct.pack("!2s2s4s8x", b"\2\0", b"\0\7", b"\x7f\0\0\1"), 16),
    "bind": lambda: raw("bind", KEPT_SOCKET, struct.pack("!2s2s4s8x", b"\2\0", b"\0\7", b"\x7f\0\0\1"), 16),
    "sendmsg": lambda: raw("sendmsg", KEPT_SOCKET, message(), 0),
    "recvmsg": lambda: raw("recvmsg", KEPT_SOCKET, ctypes.create_string_buffer(message(), 56), socket.MSG_DONTWAIT),
    # processes
    "fork": lambda: raw("fork"),
    "vfork": lambda: raw("vfork"),
    "clone": lambda: raw("clone", signal.SIGCHLD, 0, 0, 0, 0),
    "clone3": lambda: raw("clone3", struct.pack("8Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64),
    "execve": lambda: raw("execve", b"/bin/true", struct.pack("Q", 0), struct.pack("Q", 0)),
    "execveat": lambda: raw("execveat", AT_FDCWD, b"/bin/true", struct.pack("Q", 0), struct.pack("Q", 0), 0),
    "personality": lambda: raw("personality", 0xFFFF_FFFF),
    "prctl": lambda: raw("prctl", 3, 0, 0, 0, 0),
    "prctl dumpable": lambda: raw("prctl", 4, 1, 0, 0, 0),
    "setrlimit": lambda: raw("setrlimit", resource.RLIMIT_NOFILE, struct.pack("QQ", 64, 64)),
    "setresuid": lambda: raw("setresuid", 0, 0, 0),
    "setgid": lambda: raw("setgid", 0),
    "sched_setaffinity": lambda: raw("sched_setaffinity", 0, 8, struct.pack("Q", 3)),
    "getrandom": lambda: raw("getrandom", ctypes.create_string_buffer(8), 8, 0),
    # memory
    "mmap executable": lambda: raw("mmap", None, PAGE, 5, RW_ANONYMOUS, -1, 0),
    "mmap writable and executable": lambda: raw("mmap", None, PAGE, 7, RW_ANONYMOUS, -1, 0),
    "mmap shared": lambda: raw("mmap", None, PAGE, 3, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, -1, 0),
    "mprotect executable": lambda: raw("mprotect", page(3), PAGE, 5),
    "pkey_mprotect": lambda: raw("pkey_mprotect", page(3), PAGE, 5, -1),
    "userfaultfd": lambda: raw("userfaultfd", 1),
    "mlock": lambda: raw("mlock", page(3), PAGE),
    # the domain next door
    "kill": on_sibling("kill", 0),
    "kill all": lambda: raw("kill", -1, 0),
    "tkill": on_sibling("tkill", 0),
    "tgkill": through_a_thread,
    "rt_sigqueueinfo": on_sibling("rt_sigqueueinfo", 0, bytes(128)),
    "ptrace": on_sibling("ptrace", None, None, first=(0x4206,)),
    "process_vm_readv": reading_a_sibling("process_vm_readv"),
    "process_vm_writev": reading_a_sibling("process_vm_writev"),
    "pidfd_open": on_sibling("pidfd_open", 0),
    "kcmp": on_sibling("kcmp", 0, 0, 0, first=(1,)),
    "get_robust_list": on_sibling("get_robust_list", ctypes.byref(ctypes.c_long()), ctypes.byref(ctypes.c_long())),
    "shmget": lambda: raw("shmget", 0, PAGE, 0o1600),
    "msgget": lambda: raw("msgget", 0, 0o1600),
    "semget": lambda: raw("semget", 0, 1, 0o1600),
    "mq_open": lambda: raw("mq_open", b"septum", os.O_CREAT | os.O_RDWR, 0o600, None),
    # the kernel
    "setns": lambda: raw("setns", 2, 0),
    "unshare": lambda: raw("unshare", NEWUSER),
    "mount": lambda: raw("mount", b"x", b"/", b"tmpfs", 0, None),
    "umount2": lambda: raw("umount2", b"/proc", 2),
    "chroot": lambda: raw("chroot", b"/"),
    "fsopen": lambda: raw("fsopen", b"tmpfs", 0),
    "open_tree": lambda: raw("open_tree", AT_FDCWD, b"/", 0),
    "sethostname": lambda: raw("sethostname", b"x", 1),
    "uname": lambda: raw("uname", ctypes.create_string_buffer(400)),
    "bpf": lambda: raw("bpf", 0, struct.pack("IIII112x", 2, 4, 4, 1), 128),
    "perf_event_open": lambda: raw("perf_event_open", struct.pack("IIQ112x", 1, 112, 0), 0, -1, -1, 0),
    "io_uring_setup": lambda: raw("io_uring_setup", 1, ctypes.create_string_buffer(120)),
    "keyctl": lambda: raw("keyctl", 0, -3, 1),
    "add_key": lambda: raw("add_key", b"user", b"x", b"y", 1, -2),
    "request_key": lambda: raw("request_key", b"user", b"x", None, 0),
    "kexec_load": lambda: raw("kexec_load", 0, 0, None, 0),
    "init_module": lambda: raw("init_module", None, 0, b""),
    "finit_module": lambda: raw("finit_module", 0, b"", 0),
    "seccomp": lambda: raw("seccomp", 2, 0, struct.pack("I", seccomp.ALLOW)),
    "capset": lambda: raw("capset", struct.pack("=Ii", 0x20080522, 0), bytes(24)),
    "landlock_create_ruleset": lambda: raw("landlock_create_ruleset", None, 0, 1),
    "reboot": lambda: raw("reboot", 0, 0, 0, None),
    "clock_settime": lambda: raw("clock_settime", 0, None),
    "syslog": lambda: raw("syslog", 10, None, 0),
    "iopl": lambda: raw("iopl", 0),
    "modify_ldt": lambda: raw("modify_ldt", 0, ctypes.create_string_buffer(8), 8),
    # other ways into the kernel
    "a call by its 32-bit number": int80,
    "a call by its x32 number": lambda: raw(0x4000_0000 | 39),
    "a number of no call": lambda: raw(599),
}

# Proves the path that every attempt takes: sealed or not, this one call comes back, with EBADF.
HARMLESS = "close of nothing"
ATTEMPTS[HARMLESS] = lambda: raw("close", 1000)


def attempt(name: str) -> None:
    thunk = ATTEMPTS[name]()
    pid = os.getpid()
    enclose()
    if ORDERS["seal"] is None and name == "vfork":
        # One that succeeds would run two processes on one stack of this interpreter; this one fails, but in the kernel.
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        with contextlib.suppress(OSError):  # an ordinary user has no other id, and needs none to be limited
            os.setresuid(ORDINARY_USER, ORDINARY_USER, ORDINARY_USER)
    ctypes.set_errno(0)
    result = thunk()
    if name in ("fork", "clone", "clone3") and result == 0 and os.getpid() != pid:
        os._exit(0)
    say(f"errno {ctypes.get_errno()}" if result < 0 else "succeeded")


def enclose() -> Sealed | None:
    """Seals as ordered: fully, without some steps, or not at all, which then needs namespaces to be harmless in."""
    wanted = ORDERS["seal"]
    if wanted is None:
        call("unshare", NEWNS | NEWIPC | NEWUTS | NEWCGROUP)
        call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        return None
    plan = SealPlan.from_json(wanted["plan"])
    if wanted["without"]:
        return take(tuple(step for step in STEPS if step.name not in wanted["without"]), plan)
    return seal(plan)


def hold() -> None:
    """Seals, says so, and waits for the end: something to look at."""
    sealed = enclose()
    say(json.dumps(sealed._asdict() if sealed else {}))
    while True:
        select_nothing.poll(10)


def memory() -> None:
    """Takes memory until it is refused, then shows that there is life afterwards."""
    enclose()
    held = []
    try:
        for _ in range(ORDERS["mebibytes"]):
            held.append(b"x" * (1 << 20))
    except MemoryError:
        got = len(held)
        held.clear()
        say(f"refused after {got} MiB")
    else:
        say("never refused")
    small: list[object] = []
    try:
        for i in range(ORDERS["mebibytes"] * 4000):
            small.append((i, str(i)))
    except MemoryError:
        small.clear()
        say("refused small objects")
    say(str(len(bytes(1 << 20))))


def work() -> None:
    """What domains do all day, many times over, in a sealed process."""
    import gc
    import hmac as python_hmac

    import nacl.bindings
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.backends.openssl.backend import backend as _loaded_before_it_is_needed
    from cryptography.hazmat.primitives import hashes, hmac
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from septum.v1.random import RandomReply

    from appliance.vchan.codec import Codec
    from appliance.vchan.schema import schema
    from appliance.vchan.wireformat import Violation

    handshakes, random = Codec(schema("handshakes").forward), Codec(schema("random").backward)
    assert _loaded_before_it_is_needed
    event = os.eventfd(0, os.EFD_NONBLOCK)
    poll = select.epoll()
    poll.register(event, select.EPOLLIN)
    ORDERS["seal"]["plan"]["keep_fds"] += [event, poll.fileno()]
    enclose()

    for turn in range(20_000):
        key = (turn % 251).to_bytes(1, "little") * 32
        aead = ChaCha20Poly1305(key)
        nonce = struct.pack("<4xQ", turn)
        sealed = aead.encrypt(nonce, bytes(turn % 1500), b"")
        assert aead.decrypt(nonce, sealed, b"") == bytes(turn % 1500)
    try:
        aead.decrypt(nonce, b"\1" * 32, b"")
        raise AssertionError("a forgery was taken")
    except InvalidTag:
        pass
    for turn in range(1_000):
        secret = X25519PrivateKey.from_private_bytes(bytes([turn % 256]) * 32)
        other = X25519PrivateKey.from_private_bytes(b"o" * 32)
        there = secret.exchange(X25519PublicKey.from_public_bytes(other.public_key().public_bytes_raw()))
        assert there == other.exchange(secret.public_key())
    for turn in range(10_000):
        data = struct.pack("<Q", turn)
        digest = hashes.Hash(hashes.BLAKE2s(32))
        digest.update(data)
        assert digest.finalize() == hashlib.blake2s(data).digest()
        assert len(hashlib.blake2s(data, digest_size=16, key=b"k" * 32).digest()) == 16
        keyed = hmac.HMAC(b"k" * 32, hashes.BLAKE2s(32))
        keyed.update(data)
        assert keyed.finalize() == python_hmac.new(b"k" * 32, data, hashlib.blake2s).digest()
        box = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(data, b"a", bytes(24), b"k" * 32)
        assert nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(box, b"a", bytes(24), b"k" * 32) == data
    for turn in range(10_000):
        with contextlib.suppress(Violation):
            handshakes.decode(struct.pack("<Q", turn * 0x9E3779B97F4A7C15 % (1 << 64)))
        reply = RandomReply(random=struct.pack("<Q", turn))
        assert random.decode(b"".join(random.encode(reply))) == reply
    for size in (1 << 12, 1 << 16, 1 << 20, 1 << 23):
        for _ in range(50):
            grown = bytearray(size)
            grown.extend(bytes(size))
            grown += bytes(memoryview(grown)[: size // 2])
            del grown[: size // 3]
    for _ in range(4):  # so large that malloc maps it by itself, and moves it to grow
        grown = bytearray(1 << 25)
        for _ in range(20):
            grown.extend(bytes(1 << 20))
        del grown
    for _ in range(5):
        objects = {number: [str(number), number / 3, (number,)] for number in range(100_000)}
        objects[0].append(objects)
        del objects
        gc.collect()
    for turn in range(5_000):
        os.eventfd_write(event, turn + 1)
        assert poll.poll(1) == [(event, select.EPOLLIN)]
        poll.modify(event, select.EPOLLIN | select.EPOLLOUT)
        poll.modify(event, select.EPOLLIN)
        assert os.eventfd_read(event) == turn + 1
    assert poll.poll(0.01) == []
    assert time.monotonic() > 0 and time.time() > 0 and time.process_time() > 0 and time.thread_time() > 0
    assert float("1.5e300") == 1.5e300 and f"{1 / 3:.17g}" == "0.33333333333333331" and repr(0.1) == "0.1"
    assert int(str(7**4000)) == 7**4000 and len({hash(str(number)) for number in range(100)}) == 100
    try:
        deep(0)
    except RecursionError as error:
        assert "deep" in lastwords.words(error)
    lock_and_signal()
    say(f"{hash('septum')} worked")


def deep(level: int) -> int:
    return deep(level + 1)


def lock_and_signal() -> None:
    lock = threading.Lock()
    with lock:
        assert not lock.acquire(timeout=0.01)  # waits in the kernel


def uncaught() -> NoReturn:
    lastwords.install()
    enclose()
    raise RuntimeError("the end of this domain")


def muttering() -> None:
    """What else the interpreter shows with lines from files: a warning, an exception nobody can catch."""
    lastwords.install()
    enclose()
    warnings.warn("an odd thing", RuntimeWarning, stacklevel=1)

    class Sulking:
        def __del__(self) -> None:
            raise ValueError("in a finaliser")

    Sulking()
    say("still here")


def default_hook() -> NoReturn:
    """What would happen without last words: the interpreter opens the source to show a line of it."""
    enclose()
    raise RuntimeError("nobody will read this line")


def timed() -> None:
    begin = time.perf_counter()
    enclose()
    say(str(time.perf_counter() - begin))


def failing_surroundings() -> None:
    """A system call answers with an errno (0: pretends to have worked) as under a container's filter; then the seal."""
    number = this_architecture().number(ORDERS["refused"])
    ops = (
        (seccomp.LOAD, 0, 0, 0),
        (seccomp.JUMP_EQUAL, 0, 1, number),
        (seccomp.RETURN, 0, 0, 0x0005_0000 | ORDERS["errno"]),  # SECCOMP_RET_ERRNO
        (seccomp.RETURN, 0, 0, seccomp.ALLOW),
    )
    prctl(38, 1)
    seccomp.install(b"".join(seccomp.INSTRUCTION.pack(*op) for op in ops))
    sealing_or_not()


def interrupted() -> None:
    """Waits in the kernel, so that a stop and a continuation have something to interrupt."""
    lock = threading.Lock()
    lock.acquire()
    enclose()
    say("waiting")
    say(f"{lock.acquire(timeout=1.0)}")


def sealing_or_not() -> None:
    try:
        enclose()
    except SealError as error:
        say(json.dumps({"step": error.step, "errno": error.errno, "said": str(error)}))
        lastwords.leave(3)
    say("sealed")


def second_thread() -> None:
    threading.Thread(target=signal.pause, daemon=True).start()
    sealing_or_not()


def kept_directory() -> None:
    ORDERS["seal"]["plan"]["keep_fds"].append(os.open("/", os.O_RDONLY))
    sealing_or_not()


DEEDS: dict[str, Callable[[], None]] = {
    "hold": hold,
    "memory": memory,
    "work": work,
    "uncaught": uncaught,
    "muttering": muttering,
    "default hook": default_hook,
    "timed": timed,
    "failing surroundings": failing_surroundings,
    "interrupted": interrupted,
    "sealing or not": sealing_or_not,
    "second thread": second_thread,
    "kept directory": kept_directory,
}


def act() -> NoReturn:
    with contextlib.suppress(OSError):  # further groups, which root may have and must lose
        os.setgroups([4242])
    name = ORDERS["attempt"]
    if name in DEEDS:
        DEEDS[name]()
    else:
        attempt(name)
    os._exit(0)


def show_to_others(paths: list[Path]) -> None:
    """In a mount namespace of this process, puts ``paths`` where every user can reach them, by their own names.

    Directories on the way that are closed to others (root's home, a private checkout) are covered with open ones.
    """
    call("unshare", NEWNS)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    closed = {next((up for up in reversed(path.parents) if not up.stat().st_mode & 1), path) for path in paths}
    for top in closed - set(paths):
        below = {path: os.open(path, os.O_PATH) for path in paths if top in path.parents}
        call("mount", b"tmpfs", os.fsencode(top), b"tmpfs", 0, b"mode=0755")
        for path, fd in below.items():
            path.mkdir(parents=True, exist_ok=True)
            call("mount", b"/proc/self/fd/%d" % fd, os.fsencode(path), None, MS_BIND, None)
            os.close(fd)


def as_ordinary_user() -> NoReturn:
    """What `unshare -Urnpm --fork --mount-proc` gives an ordinary user, with a monitor in it that starts the domain."""
    show_to_others([Path(sys.base_prefix), *map(Path, ORDERS["path"])])
    os.setgroups([])
    os.setresgid(ORDINARY_USER, ORDINARY_USER, ORDINARY_USER)
    os.setresuid(ORDINARY_USER, ORDINARY_USER, ORDINARY_USER)
    prctl(PR_SET_DUMPABLE, 1)
    call("unshare", NEWUSER | NEWPID | NEWNS | NEWNET)
    for path, text in (
        ("/proc/self/setgroups", b"deny"),
        ("/proc/self/uid_map", b"0 %d 1" % ORDINARY_USER),
        ("/proc/self/gid_map", b"0 %d 1" % ORDINARY_USER),
    ):
        with open(path, "wb", buffering=0) as file:
            file.write(text)
    pid = os.fork()
    if pid == 0:
        monitor()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(status)


def monitor() -> NoReturn:
    """Starts this program again as the domain, looks at it if that is what it is for, and ends as it did."""
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    call("mount", b"proc", b"/proc", b"proc", 0, None)
    ORDERS["seal"]["plan"]["foreign"] = own_namespaces()
    memory = os.memfd_create("orders")
    os.write(memory, json.dumps({**ORDERS, "as_user": False}).encode())
    child = spawn({0: 0, 1: 1, 2: 2, 3: memory}, Path(__file__))
    if ORDERS["attempt"] == "hold":
        look_at(child)
    status = child.reap()
    os._exit(128 - status if status < 0 else status)


def look_at(child: Child) -> None:
    for _ in range(1000):
        seals = evidence.read_seals(child.pid)
        if seals.number("Seccomp") == 2:
            break
        time.sleep(0.005)
    say(json.dumps(seals.as_rows(SealPlan.from_json(ORDERS["seal"]["plan"]))))
    child.kill()


if ORDERS["as_user"]:
    as_ordinary_user()
select_nothing = select.epoll()
if ORDERS["seal"]:
    ORDERS["seal"]["plan"]["keep_fds"] += [select_nothing.fileno()]
held_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
os.dup2(held_socket.fileno(), KEPT_SOCKET)

act()
