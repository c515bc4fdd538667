"""What an attacker with a whole domain tries. Every method says what came of it: something that worked, or an error's
name.

The same code runs in dom0, where it may succeed: that is how a test knows that a refusal was one, and not a mistake in
here. Standard library only. Numbers of ioctls: linux, include/uapi/xen/{gntalloc,gntdev,evtchn,privcmd}.h; of
hypercalls and
their structures: xen, include/public/{xen,domctl,sysctl}.h and xsm/flask_op.h, as of Xen 4.17.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import struct

PAGE = 4096
BATCH = 64  # pages that are granted, or mapped, by one call


def _ioc(letter, number, size):
    return size << 16 | ord(letter) << 8 | number


ALLOC_GREF = _ioc("G", 5, 24)
MAP_GRANT, UNMAP_GRANT = _ioc("G", 0, 24), _ioc("G", 1, 16)
BIND_INTERDOMAIN, BIND_UNBOUND, UNBIND, NOTIFY = _ioc("E", 1, 8), _ioc("E", 2, 4), _ioc("E", 3, 4), _ioc("E", 4, 4)
HYPERCALL, MMAPBATCH_V2 = _ioc("P", 0, 48), _ioc("P", 4, 32)

XEN_VERSION, CONSOLE_IO, XSM_OP, SYSCTL, DOMCTL = 17, 18, 27, 35, 36


def attempt(action):
    """{"ok": what it returns}, or {"error": the name of what refused it}."""
    try:
        return {"ok": action()}
    except OSError as error:
        return {"error": errno.errorcode.get(error.errno, str(error.errno))}


def _asked(device, request, structure):
    """What the ioctl returns: a number, where Python would give the structure back."""
    return fcntl.ioctl(device, request, bytearray(structure))


class Probe:
    def __init__(self):
        self._alloc = os.open("/dev/xen/gntalloc", os.O_RDWR)
        self._gntdev = os.open("/dev/xen/gntdev", os.O_RDWR)
        # Only where the kernel has it: see dump and the hypercalls
        self._privcmd = os.open("/dev/xen/privcmd", os.O_RDWR) if os.path.exists("/dev/xen/privcmd") else -1
        self._kept = []

    # Channels: what two ends need to build one

    def offer(self, peer, text):
        """A page with ``text`` granted to the domain ``peer``, and an event channel for it to bind."""
        request = bytearray(struct.pack("<HHIQI4x", peer, 1, 1, 0, 0))
        fcntl.ioctl(self._alloc, ALLOC_GREF, request)
        index, ref = struct.unpack_from("<QI", request, 8)
        page = mmap.mmap(self._alloc, PAGE, offset=index)
        page[: len(text)] = text.encode()
        events = os.open("/dev/xen/evtchn", os.O_RDWR)
        self._kept += [page, events]
        return {"ref": ref, "port": attempt(lambda: _asked(events, BIND_UNBOUND, struct.pack("<I", peer)))}

    def port_for(self, peer):
        """An event channel alone, left open for ``peer``."""
        events = os.open("/dev/xen/evtchn", os.O_RDWR)
        self._kept.append(events)
        return _asked(events, BIND_UNBOUND, struct.pack("<I", peer))

    def map(self, peer, ref):
        """The text on the page that ``peer`` granted under ``ref``, after writing to it."""
        request = bytearray(struct.pack("<IIQII", 1, 0, 0, peer, ref))
        fcntl.ioctl(self._gntdev, MAP_GRANT, request)
        (index,) = struct.unpack_from("<Q", request, 8)
        try:
            page = mmap.mmap(self._gntdev, PAGE, offset=index)
            text = bytes(page[:64]).rstrip(b"\0").decode(errors="replace")
            page[PAGE - 1] = 1
            page.close()
            return text
        finally:
            fcntl.ioctl(self._gntdev, UNMAP_GRANT, struct.pack("<QII", index, 1, 0))

    def bind(self, peer, port):
        """Binds an event channel that ``peer`` has left open, sends an event, and lets go."""
        events = os.open("/dev/xen/evtchn", os.O_RDWR)
        try:
            own = _asked(events, BIND_INTERDOMAIN, struct.pack("<II", peer, port))
            fcntl.ioctl(events, NOTIFY, struct.pack("<I", own))
            return own
        finally:
            os.close(events)

    def guess(self, peer, refs, ports):
        """Every grant below ``refs`` and every port below ``ports`` of ``peer`` that can be had by trying."""
        return {
            "refs": [ref for ref in range(refs) if "ok" in attempt(lambda ref=ref: self.map(peer, ref))],
            "ports": [port for port in range(1, ports) if "ok" in attempt(lambda port=port: self.bind(peer, port))],
        }

    def hoard_ports(self, peer, count):
        """How many event channels it gets, of ``count``, until it is refused one."""
        events = os.open("/dev/xen/evtchn", os.O_RDWR)
        try:
            for number in range(count):
                if "error" in attempt(lambda: _asked(events, BIND_UNBOUND, struct.pack("<I", peer))):
                    return number
            return count
        finally:
            os.close(events)

    def offer_pages(self, peer):
        """Pages granted to the domain ``peer`` until this one ends: as many as are mapped by one call."""
        request = bytearray(struct.pack("<HHIQ", peer, 1, BATCH, 0) + bytes(4 * BATCH))
        fcntl.ioctl(self._alloc, ALLOC_GREF, request)
        return struct.unpack_from(f"<{BATCH}I", request, 16)

    def hoard_grants(self, peer, count):
        """How many pages it gets to grant to ``peer``, of ``count``, until it is refused more."""
        with open("/sys/module/xen_gntalloc/parameters/limit", "w") as limit:  # Linux' own: an attacker's has none
            limit.write(str(2 * count))
        device = os.open("/dev/xen/gntalloc", os.O_RDWR)
        try:
            for number in range(0, count, BATCH):
                request = struct.pack("<HHIQ", peer, 1, BATCH, 0) + bytes(4 * BATCH)
                if "error" in attempt(lambda request=request: _asked(device, ALLOC_GREF, request)):
                    return number
            return count
        finally:
            os.close(device)

    def hoard_maps(self, peer, refs, count):
        """How many mappings it gets of the pages that ``peer`` has offered as ``refs``, all of them again and again, of
        ``count``, until it is refused more."""
        device = os.open("/dev/xen/gntdev", os.O_RDWR)
        windows = []

        def window():
            request = bytearray(
                struct.pack("<IIQ", BATCH, 0, 0) + b"".join(struct.pack("<II", peer, ref) for ref in refs)
            )
            fcntl.ioctl(device, MAP_GRANT, request)
            (index,) = struct.unpack_from("<Q", request, 8)
            windows.append(mmap.mmap(device, BATCH * PAGE, offset=index))

        try:
            for number in range(0, count, BATCH):
                if "error" in attempt(window):
                    return number
            return count
        finally:
            for each in windows:
                each.close()
            os.close(device)

    def shout(self, count):
        """Bytes that went to the console, of ``count``."""
        done = 0
        while done < count:
            done += os.write(1, b"shout! " * 512)
        return done

    # Memory of another domain

    def dump(self, peer, frames):
        """How many of ``frames`` of the domain ``peer`` could be mapped, and its bytes read."""
        count = len(frames)
        window = mmap.mmap(self._privcmd, count * PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(window))
        numbers = (ctypes.c_uint64 * count)(*frames)
        errors = (ctypes.c_int * count)()
        request = struct.pack("<IHxxQQQ", count, peer, address, ctypes.addressof(numbers), ctypes.addressof(errors))
        fcntl.ioctl(self._privcmd, MMAPBATCH_V2, request)
        mapped = [number for number in range(count) if errors[number] == 0]
        if not mapped:
            raise OSError(-errors[0], "foreign mapping")
        return {"mapped": len(mapped), "byte": ctypes.string_at(address + mapped[0] * PAGE, 1).hex()}

    # Hypercalls of those who administer

    def _call(self, number, *arguments):
        request = struct.pack("<6Q", number, *arguments, *(0,) * (5 - len(arguments)))
        return _asked(self._privcmd, HYPERCALL, request)

    def _structure(self, data):
        # Xen reads it at its address: the page must be there
        page = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        page[: len(data)] = data
        self._kept.append(page)
        return page, ctypes.addressof(ctypes.c_char.from_buffer(page))

    def version(self):
        """Which Xen this is: every guest may ask that. An error means that it is not Xen who refuses the others."""
        return self._call(XEN_VERSION, 0, 0)

    def domctl(self, command, peer):
        """A command of domctl on ``peer``: information (5), pause (3), unpause (4)."""
        _, address = self._structure(struct.pack("<IIH6x", command, 0x15, peer))
        return self._call(DOMCTL, address)

    def frame_of(self, peer):
        """The number of a page that belongs to the domain ``peer``: the one it shares with Xen. For dom0 to find."""
        page, address = self._structure(struct.pack("<IIH6x", 5, 0x15, peer))
        self._call(DOMCTL, address)
        return struct.unpack_from("<Q", page, 64)[0]  # shared_info_frame of xen_domctl_getdomaininfo

    def physinfo(self):
        _, address = self._structure(struct.pack("<II", 3, 0x15))
        return self._call(SYSCTL, address)

    def stop_enforcing(self):
        _, address = self._structure(struct.pack("<III", 3, 1, 0))
        return self._call(XSM_OP, address)

    def print_on_xen(self, text):
        _, address = self._structure(text.encode())
        return self._call(CONSOLE_IO, 0, len(text), address)
