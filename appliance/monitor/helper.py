"""A short-lived copy of the monitor that does one piece of work and reports back: what it imports is gone with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, NoReturn

_MOST = 1 << 20  # bytes of a report


class HelperError(Exception):
    """The work failed; the text is the reason."""


class Helper:
    """Runs ``work`` in a child process, at once. ``fd`` becomes readable when ``result()`` will not have to wait.

    What ``work`` returns must be JSON. The caller must have one thread only.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self.fd, end = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _run(work, end)
        os.close(end)

    def result(self) -> Any:
        """What ``work`` returned. Errors: HelperError with the reason if it raised or died."""
        with open(self.fd, "rb") as pipe:
            report = pipe.read(_MOST)
        os.waitpid(self._pid, 0)
        if not report:
            raise HelperError("a helper process died without a word")
        good, value = json.loads(report)
        if not good:
            raise HelperError(str(value))
        return value


def _run(work: Callable[[], Any], end: int) -> NoReturn:
    try:
        try:
            report = json.dumps([True, work()])
        except Exception as error:
            report = json.dumps([False, str(error) or type(error).__name__])
        with open(end, "w") as pipe:
            pipe.write(report)
    finally:
        os._exit(0)
