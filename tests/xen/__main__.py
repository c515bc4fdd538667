"""A machine with Xen on it, by hand.

    python -m tests.xen boot                    build what is missing, boot, and stay until Ctrl-C
    python -m tests.xen boot --stock            the same without XSM: Debian's own Xen
    python -m tests.xen boot --policy FILE      with a compiled FLASK policy of your own

and meanwhile, from other terminals:

    python -m tests.xen run xl list             a command in dom0; its output comes as it goes
    python -m tests.xen run 'xl info | head'    (a single word goes to a shell)
    python -m tests.xen shell                   lines of commands, one after the other
    python -m tests.xen put FILE /path          a file into dom0;  get /path FILE  and out of it
    python -m tests.xen sync                    this checkout anew into dom0's /septum

Several machines may be up at once: --name tells them apart.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.xen.rig import Rig, RigError, sources
from tests.xen.rig.channel import Channel
from tests.xen.rig.places import XEN, step


def boot(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    policy = Path(options.policy).read_bytes() if options.policy else None
    with Rig(xsm=not options.stock, policy=policy, memory=options.memory, guest_logs=True, name=options.name) as rig:
        print(f"up: namespaces {rig.lan.name} and {rig.wan.name}; console in {rig.folder}/console.log; Ctrl-C ends it")
        rig.disconnect()
        try:
            while rig.alive():
                time.sleep(0.5)
        except KeyboardInterrupt:
            return 0
    print("the machine has ended", file=sys.stderr)
    return 1


def connected(options: argparse.Namespace) -> Channel:
    path = XEN / f"run/{options.name}/agent.sock"
    if not path.exists():
        raise RigError(f"no machine {options.name!r} is up: python -m tests.xen boot")
    channel = Channel(path)
    if not channel.hello(10):
        raise RigError("dom0 does not answer: is another command still at it?")
    return channel


def run(channel: Channel, words: list[str], timeout: float) -> int:
    command = ["/bin/sh", "-c", words[0]] if len(words) == 1 else words

    def show(piece: bytes) -> None:
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()

    return channel.run(command, timeout, show=show)[0]


def shell(channel: Channel, timeout: float) -> int:
    while True:
        try:
            line = input("dom0# " if sys.stdin.isatty() else "")
            if line.strip() and (code := run(channel, [line], timeout)):
                print(f"exit {code}", file=sys.stderr)
        except EOFError:
            return 0
        except RigError as error:
            print(error, file=sys.stderr)


def sync(channel: Channel) -> int:
    """Only what git knows of: the libraries stay as they were at boot."""
    from tests.xen.rig.cpio import archive

    with step("this checkout for dom0"):
        channel.put("/tmp/checkout.cpio", archive(sources.checkout()), 0o600, 120)
        return channel.run(["/bin/sh", "-c", "cd / && cpio -idum < /tmp/checkout.cpio && rm /tmp/checkout.cpio"], 120)[
            0
        ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.xen", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="hand", help="which machine (default: hand)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a command may take")
    parser.add_argument("--stock", action="store_true", help="boot: Debian's Xen, which has no XSM")
    parser.add_argument("--policy", help="boot: a compiled FLASK policy")
    parser.add_argument("--memory", type=int, default=2560, help="boot: MiB of the machine")
    parser.add_argument("do", choices=["boot", "run", "shell", "put", "get", "sync"])
    parser.add_argument("words", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        if options.do == "boot":
            return boot(options)
        channel = connected(options)
        if options.do == "run":
            return run(channel, options.words, options.timeout)
        if options.do == "shell":
            return shell(channel, options.timeout)
        if options.do == "sync":
            return sync(channel)
        source, target = options.words
        if options.do == "put":
            channel.put(target, Path(source).read_bytes(), Path(source).stat().st_mode & 0o777, options.timeout)
        else:
            Path(target).write_bytes(channel.get(source, options.timeout))
        return 0
    except RigError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
