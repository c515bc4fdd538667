"""keeper.py without Xen: its end of the channel is memory and events of processes, at descriptors 5 to 7. All else, the
seal above all, is the real one's.
"""

import json
import os
import sys

description = json.loads(os.pread(3, os.fstat(3).st_size, 0))
os.close(3)
sys.path.extend(description["path"])

from appliance.monitor.xen import keeping  # noqa: E402
from appliance.vchan import memfd  # noqa: E402
from appliance.vchan.schema import schema  # noqa: E402
from appliance.xen import gntdev  # noqa: E402


class Wire:
    def __init__(self, device: int, orders: object) -> None:
        self._wire = memfd.attach(6, 5, 7, schema("disk").orders)  # 5: where the real one hears events
        self.memory, self.fileno = self._wire.memory, self._wire.fileno
        self.notify, self.hear = self._wire.notify, self._wire.hear

    def accept(self, domid: int, meeting: object) -> None:
        pass


gntdev.open_device = lambda: os.open(os.devnull, os.O_RDWR)
keeping.ClientWire = Wire  # type: ignore[assignment,misc]
keep = keeping.seal
keeping.seal = lambda plan, rules: keep(plan._replace(keep_fds=(*plan.keep_fds, 7)), rules)
keeping.run(description["seal"], description["place"])
