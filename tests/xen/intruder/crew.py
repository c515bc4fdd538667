"""Guests for tests, one a domain of an assembly, as dom0 sees them: created, asked, destroyed. Runs in dom0."""

import json
import subprocess
import time
import uuid

from appliance.monitor.xen import config, wiring
from appliance.monitor.xen.plan import plans_of
from appliance.xen.xenstore import Xenstore

PATIENCE = 180.0
MEMORY = 136  # MiB, of Debian's kernel, its initramfs, Python, and 16 of pages to grant: 112 were not always enough
HURRY = "mitigations=off init_on_alloc=0 apparmor=0 cryptomgr.notests lpj=4000000 loglevel=1"

# Quotas of a real guest are counted from its channels; here they shall not be what refuses
QUOTAS = {"max_grant_frames": 8, "max_maptrack_frames": 8, "max_event_channels": 256}


class Crew:
    """Guests by name, each configured and wired in the xenstore as the back end does it, but for what it boots."""

    def __init__(self, assembly, guest):
        """All boot the files ``kernel`` and ``ramdisk`` of the folder ``guest``."""
        self.plans = plans_of(assembly, "crew")
        self.guest = guest
        self.store = Xenstore()
        self.ids = {}
        self._number = 0

    def create(self, name):
        """A paused guest in the place of the domain ``name``.

        Errors: RuntimeError with what xl said.
        """
        plan = self.plans[name]
        kernel, ramdisk = str(self.guest / "kernel"), str(self.guest / "ramdisk")
        extra = f"console=hvc0 rdinit=/init quiet {HURRY}"
        identity = str(uuid.uuid4())
        planned = config.of(plan, uuid=identity, kernel=kernel, ramdisk=ramdisk, extra=extra, memory_mib=MEMORY)
        path = f"/tmp/{name}.cfg"
        with open(path, "wb") as file:
            file.write(config.render({**planned, **QUOTAS, "type": "pv"}))
        xl("create", "-p", path)
        domid = self.ids[name] = int(xl("domid", plan.title))
        home = f"/local/domain/{domid}"
        self._own(home, domid)
        nodes = wiring.home(plan, domid, self.ids)
        # Two nodes that no component has: what we ask, and what it answers
        nodes += [wiring.Node("ask", "0", wiring.reads(domid)), wiring.Node("data/answer", "", wiring.writes(domid))]
        for node in nodes:
            self.store.write(f"{home}/{node.path}", node.value)
            self.store.set_permissions(f"{home}/{node.path}", node.permissions)
        for number, node in wiring.arrival(plan, domid, self.plans, self.ids):
            self.store.write(f"/local/domain/{number}/{node.path}", node.value)
            self.store.set_permissions(f"/local/domain/{number}/{node.path}", node.permissions)

    def _own(self, path, domid):
        self.store.set_permissions(path, wiring.reads(domid))
        for entry in self.store.directory(path):
            self._own(f"{path}/{entry}", domid)

    def gather(self, names):
        """A guest in the place of each, ready to be asked. One starts while the next is built: all at once would have
        each other's pages thrown out of the emulator's tables all the time."""
        before = None
        for name in names:
            self.create(name)
            if before:
                self._answer(before, 0)
            xl("unpause", self.plans[name].title)
            before = name
        self._answer(before, 0)

    def ask(self, name, of, do, *arguments):
        self._number += 1
        asked = json.dumps({"of": of, "do": do, "with": arguments})
        self.store.write(f"/local/domain/{self.ids[name]}/ask", f"{self._number} {asked}")
        return json.loads(self._answer(name, self._number))

    def probe(self, name, do, *arguments):
        return self.ask(name, "probe", do, *arguments)

    def _answer(self, name, number):
        over = time.monotonic() + PATIENCE
        while time.monotonic() < over:
            said, _, answer = (self.store.read(f"/local/domain/{self.ids[name]}/data/answer") or "").partition(" ")
            if said == str(number):
                return answer
            if not self.store.is_introduced(self.ids[name]):
                break
            time.sleep(0.01)
        raise TimeoutError(f"{name} does not answer, or is gone: {xl('list')}")

    def destroy(self):
        for name in list(self.ids):
            subprocess.run(["xl", "destroy", self.plans[name].title], check=False, capture_output=True)
            del self.ids[name]


def xl(*words):
    done = subprocess.run(["xl", *words], capture_output=True, text=True, timeout=400, check=False)
    if done.returncode:
        raise RuntimeError(f"xl {' '.join(words)}: exit {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout
