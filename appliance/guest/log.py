"""A component's voice: records to the log domain. Lost when the ring is full, never a reason to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from septum.v1.records import Record

from appliance.vchan.message import cut

if TYPE_CHECKING:
    from appliance.guest.ports import DroppingOut

# RFC 5424 section 6.2.1
ERROR: Final = 3
WARNING: Final = 4
INFO: Final = 6

_LONGEST_TEXT: Final = 512


class Log:
    """``info``, ``warning``, ``error``: an event's fixed name, and a text that must hold no secret."""

    def __init__(self, out: DroppingOut | None) -> None:
        self._out = out

    def _record(self, severity: int, event: str, text: str) -> None:
        if self._out is not None:
            self._out.send(Record(severity=severity, event=event, text=cut(text, _LONGEST_TEXT)))

    def info(self, event: str, text: str = "") -> None:
        self._record(INFO, event, text)

    def warning(self, event: str, text: str = "") -> None:
        self._record(WARNING, event, text)

    def error(self, event: str, text: str = "") -> None:
        self._record(ERROR, event, text)
