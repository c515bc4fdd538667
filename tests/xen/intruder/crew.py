"""Guests for tests, one a domain of an assembly, as dom0 sees them: created, asked, destroyed. Runs in dom0."""

import json
import subprocess
import time

from tests.xen.intruder import xs

PATIENCE = 180.0


class Crew:
    """Guests by name. ``labels``: name -> (seclabel, init_seclabel) or None for a Xen without XSM."""

    def __init__(self, kernel, ramdisk):
        self.kernel, self.ramdisk = kernel, ramdisk
        self.store = xs.Store()
        self.ids = {}
        self._number = 0

    def create(self, name, label=None, building=None, kind="pv", memory=128):
        """A paused guest. Errors: CalledProcessError with what xl said."""
        lines = [f'name = "{name}"', f'type = "{kind}"', f'kernel = "{self.kernel}"', f'ramdisk = "{self.ramdisk}"']
        lines += ['extra = "console=hvc0 rdinit=/init quiet"', f"memory = {memory}", f"maxmem = {memory}", "vcpus = 1"]
        lines += ['on_poweroff = "destroy"', 'on_crash = "destroy"', 'on_reboot = "destroy"', "nomigrate = 1"]
        lines += ['tsc_mode = "native"', "vfb = []"]
        lines += [f'seclabel = "{label}"'] if label else []
        lines += [f'init_seclabel = "{building}"'] if building else []
        path = f"/tmp/{name}.cfg"
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        xl("create", "-p", path)
        self.ids[name] = int(xl("domid", name))

    def start(self, *names):
        """Unpauses them and waits until each is ready to be asked."""
        for name in names:
            xl("unpause", name)
        for name in names:
            self._answer(name, 0)

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
            try:
                said, _, answer = self.store.read(f"/local/domain/{self.ids[name]}/data/answer").partition(" ")
            except xs.Refused:
                said = answer = ""
            if said == str(number):
                return answer
            time.sleep(0.01)
        raise TimeoutError(f"{name} does not answer: {xl('list')}")

    def destroy(self):
        for name in list(self.ids):
            subprocess.run(["xl", "destroy", name], check=False, capture_output=True)
            del self.ids[name]


def xl(*words):
    done = subprocess.run(["xl", *words], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"xl {' '.join(words)}: exit {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout
