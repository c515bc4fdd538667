"""Random and damaged inputs for the compiled loops, under sanitizers, beside what their Python twins make of them.

    make fuzz                                   a minute
    make fuzz MINUTES=30                        or as long as you like
    make fuzz ARGS="--seed 7"                   the same inputs once more; each run prints its seed
    make fuzz ARGS="--seed 7 --first 4711 --inputs 1"     the one that was named

sanitized.py builds the extensions, throw.py makes the inputs and judges. Input N of a seed is always the same.
"""

from __future__ import annotations

import argparse
import secrets
import struct
import subprocess
import sys
import tempfile

from tests.fuzz import sanitized


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--inputs", type=int, default=0, help="stop after so many instead")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    sanitized.build()
    # A process that a sanitizer ends says nothing: the number of the input at hand stands in a file
    with tempfile.NamedTemporaryFile() as at:
        at.write(bytes(8))
        at.flush()
        numbers = [options.seed, options.first, options.inputs, options.minutes * 60, at.name]
        thrower = [sys.executable, "-m", "tests.fuzz.throw", *map(str, numbers)]
        code = subprocess.run(thrower, env=sanitized.environment(), cwd=sanitized.ROOT, check=False).returncode
        if code:
            at.seek(0)
            (number,) = struct.unpack("=Q", at.read(8))
            print(f'input {number} did that: make fuzz ARGS="--seed {options.seed} --first {number} --inputs 1"')
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
