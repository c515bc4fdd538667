"""The xenstore in as few lines as it takes (xen/include/public/io/xs_wire.h). For test guests and for dom0; standard
library only."""

import os
import struct

DIRECTORY, READ, GET_PERMS, WATCH, WRITE, MKDIR, RM, SET_PERMS, WATCH_EVENT, ERROR = 1, 2, 3, 4, 11, 12, 13, 14, 15, 16
_HEAD = struct.Struct("<IIII")


class Refused(Exception):
    """The store's answer is an error; the text is its name, as EACCES."""


class Store:
    def __init__(self):
        self._fd = os.open("/dev/xen/xenbus", os.O_RDWR)
        self.events = 0

    def _take(self, count):
        data = b""
        while len(data) < count:
            data += os.read(self._fd, count - len(data))
        return data

    def _message(self):
        kind, _, _, length = _HEAD.unpack(self._take(_HEAD.size))
        return kind, self._take(length)

    def ask(self, kind, *parts):
        body = b"".join(parts)
        os.write(self._fd, _HEAD.pack(kind, 1, 0, len(body)) + body)
        while True:
            got, data = self._message()
            if got == WATCH_EVENT:
                self.events += 1
                continue
            if got == ERROR:
                raise Refused(data.rstrip(b"\0").decode())
            return data

    def read(self, path):
        return self.ask(READ, path.encode() + b"\0").decode()

    def write(self, path, value):
        self.ask(WRITE, path.encode() + b"\0", value.encode())

    def remove(self, path):
        self.ask(RM, path.encode() + b"\0")

    def directory(self, path):
        return self.ask(DIRECTORY, path.encode() + b"\0").decode().split("\0")[:-1]

    def set_permissions(self, path, *permissions):
        self.ask(SET_PERMS, path.encode() + b"\0", *(one.encode() + b"\0" for one in permissions))

    def permissions(self, path):
        return self.ask(GET_PERMS, path.encode() + b"\0").decode().split("\0")[:-1]

    def watch(self, path):
        self.ask(WATCH, path.encode() + b"\0", b"w\0")

    def hoard_watches(self, count):
        """How many watches it gets, of ``count``, until it is refused one."""
        for number in range(count):
            try:
                self.ask(WATCH, b"ask\0", b"%d\0" % number)
            except (Refused, OSError):  # Linux asks for a watch itself, and says the error in its own way
                return number
        return count

    def each(self, tried):
        """Of each method and its arguments: {"ok": what it returns}, or {"error": the name of what refused it}."""
        return {what: self._attempt(*do) for what, do in tried.items()}

    def _attempt(self, name, *arguments):
        try:
            return {"ok": getattr(self, name)(*arguments)}
        except Refused as error:
            return {"error": str(error)}

    def wait(self):
        """Until something that is watched has changed since the last time."""
        while not self.events:
            kind, _ = self._message()
            self.events += kind == WATCH_EVENT
        self.events = 0
