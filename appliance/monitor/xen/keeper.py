"""The program that keeps a store's disk in dom0, as boot.py is that of a domain: started in the same way, sealed in the
same way, with the image's file in its hands. What it does is in keeping.py.
"""

import json
import os
import sys

DESCRIPTION_FD = 3


def main() -> None:
    """Never returns while the monitor lives."""
    description = json.loads(os.pread(DESCRIPTION_FD, os.fstat(DESCRIPTION_FD).st_size, 0))
    os.close(DESCRIPTION_FD)
    # -I -S left only the standard library; the monitor says where the rest lies, and nothing else is looked at.
    sys.path.extend(description["path"])
    from appliance.monitor.xen import keeping

    keeping.run(description["seal"], description["place"])


if __name__ == "__main__":
    main()
