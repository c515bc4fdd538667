"""Numbers and layouts of the Xen devices' ioctls, as the kernel's own headers have them: a C program prints them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from appliance.xen import evtchn, gntalloc, gntdev, xswire

PROGRAM = r"""
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
typedef uint16_t domid_t;
typedef uint32_t grant_ref_t;
#include <xen/evtchn.h>
#include <xen/gntalloc.h>
#include <xen/gntdev.h>
#include <xen/io/xs_wire.h>
#define SHOW(x) printf(#x " %lu\n", (unsigned long)(x))
int main(void) {
    SHOW(IOCTL_EVTCHN_BIND_INTERDOMAIN); SHOW(IOCTL_EVTCHN_BIND_UNBOUND_PORT); SHOW(IOCTL_EVTCHN_UNBIND);
    SHOW(IOCTL_EVTCHN_NOTIFY); SHOW(IOCTL_EVTCHN_RESET);
    SHOW(IOCTL_GNTALLOC_ALLOC_GREF); SHOW(IOCTL_GNTALLOC_DEALLOC_GREF); SHOW(IOCTL_GNTALLOC_SET_UNMAP_NOTIFY);
    SHOW(IOCTL_GNTDEV_MAP_GRANT_REF); SHOW(IOCTL_GNTDEV_UNMAP_GRANT_REF); SHOW(IOCTL_GNTDEV_SET_UNMAP_NOTIFY);
    SHOW(offsetof(struct ioctl_gntalloc_alloc_gref, index));
    SHOW(offsetof(struct ioctl_gntalloc_alloc_gref, gref_ids));
    SHOW(offsetof(struct ioctl_gntdev_map_grant_ref, index));
    SHOW(offsetof(struct ioctl_gntdev_map_grant_ref, refs));
    SHOW(sizeof(struct ioctl_gntdev_unmap_grant_ref));
    SHOW(sizeof(struct ioctl_gntalloc_dealloc_gref));
    SHOW(offsetof(struct ioctl_gntalloc_unmap_notify, event_channel_port));
    SHOW(GNTALLOC_FLAG_WRITABLE);
    SHOW(XS_DIRECTORY); SHOW(XS_READ); SHOW(XS_GET_PERMS); SHOW(XS_WATCH); SHOW(XS_UNWATCH);
    SHOW(XS_GET_DOMAIN_PATH); SHOW(XS_WRITE); SHOW(XS_MKDIR); SHOW(XS_RM); SHOW(XS_SET_PERMS); SHOW(XS_WATCH_EVENT);
    SHOW(XS_ERROR); SHOW(XS_IS_DOMAIN_INTRODUCED); SHOW(XS_INTRODUCE); SHOW(XS_RELEASE);
    SHOW(XENSTORE_PAYLOAD_MAX); SHOW(sizeof(struct xsd_sockmsg));
}
"""


def test_every_number_is_the_headers(tmp_path: Path) -> None:
    source, program = tmp_path / "show.c", tmp_path / "show"
    source.write_text(PROGRAM)
    subprocess.run(["gcc", "-o", program, source], check=True)
    shown = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in (line.rsplit(" ", 1) for line in shown.splitlines())}
    kinds = {f"XS_{kind.name}": int(kind) for kind in xswire.Kind}
    assert found == {
        "IOCTL_EVTCHN_BIND_INTERDOMAIN": evtchn.BIND_INTERDOMAIN,
        "IOCTL_EVTCHN_BIND_UNBOUND_PORT": evtchn.BIND_UNBOUND,
        "IOCTL_EVTCHN_UNBIND": evtchn.UNBIND,
        "IOCTL_EVTCHN_NOTIFY": evtchn.NOTIFY,
        "IOCTL_EVTCHN_RESET": evtchn.RESET,
        "IOCTL_GNTALLOC_ALLOC_GREF": gntalloc.ALLOC,
        "IOCTL_GNTALLOC_DEALLOC_GREF": gntalloc.DEALLOC,
        "IOCTL_GNTALLOC_SET_UNMAP_NOTIFY": gntalloc.SET_UNMAP_NOTIFY,
        "IOCTL_GNTDEV_MAP_GRANT_REF": gntdev.MAP,
        "IOCTL_GNTDEV_UNMAP_GRANT_REF": gntdev.UNMAP,
        "IOCTL_GNTDEV_SET_UNMAP_NOTIFY": gntdev.SET_UNMAP_NOTIFY,
        "offsetof(struct ioctl_gntalloc_alloc_gref, index)": 8,
        "offsetof(struct ioctl_gntalloc_alloc_gref, gref_ids)": gntalloc._ALLOC.size,
        "offsetof(struct ioctl_gntdev_map_grant_ref, index)": 8,
        "offsetof(struct ioctl_gntdev_map_grant_ref, refs)": gntdev._MAP.size,
        "sizeof(struct ioctl_gntdev_unmap_grant_ref)": gntdev._UNMAP.size,
        "sizeof(struct ioctl_gntalloc_dealloc_gref)": gntalloc._DEALLOC.size,
        "offsetof(struct ioctl_gntalloc_unmap_notify, event_channel_port)": gntalloc.UNMAP_NOTIFY.size - 4,
        "GNTALLOC_FLAG_WRITABLE": 1,
        **kinds,
        "XENSTORE_PAYLOAD_MAX": xswire.MOST_PAYLOAD,
        "sizeof(struct xsd_sockmsg)": xswire.HEADER.size,
    }
