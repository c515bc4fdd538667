"""Random and damaged inputs for all that is compiled, under sanitizers: for the loops beside what their Python twins
make of them, for the short way beside the long one.

    make fuzz                                   a minute
    make fuzz MINUTES=30                        or as long as you like
    make fuzz ARGS="--seed 7"                   the same inputs once more; each run prints its seed
    make fuzz ARGS="--seed 7 --first 4711 --inputs 1"     the one that was named

    make fuzz ARGS="--only short"           those whose names begin so

sanitized.py builds the extensions, throw.py makes the inputs of the loops and judges, stories.py those of the short
way. Input N of a seed is always the same.
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
    parser.add_argument("--only", default="", help="of targets whose names begin so")
    options = parser.parse_args()
    sanitized.build(lambda what: print(what, flush=True))
    # A process that a sanitizer ends says nothing: the number of the input at hand stands in a file
    with tempfile.NamedTemporaryFile() as at:
        at.write(bytes(8))
        at.flush()
        words = [options.seed, options.first, options.inputs, options.minutes * 60, at.name, options.only]
        thrower = [sys.executable, "-m", "tests.fuzz.throw", *map(str, words)]
        code = subprocess.run(thrower, env=sanitized.environment(), cwd=sanitized.ROOT, check=False).returncode
        if code:
            at.seek(0)
            (number,) = struct.unpack("=Q", at.read(8))
            only = f" --only {options.only}" if options.only else ""
            print(f'input {number} did that: make fuzz ARGS="--seed {options.seed} --first {number} --inputs 1{only}"')
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
