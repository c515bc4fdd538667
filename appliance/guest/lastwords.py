"""Last words: what a dying domain can still say.

The interpreter shows a traceback with the lines of the source, and opens the files to do so. In a sealed domain that
open would kill it with its mouth shut. Here the words are formed from what is in memory, bounded, written in one go to
the pipe the monitor reads once the domain is dead, and the process ends without the interpreter's own ending, which
restores signal handlers and would be refused as well.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, NoReturn

LAST_WORDS_FD: Final = 2
EXIT_STATUS: Final = 1

_MOST_BYTES: Final = 4000  # below PIPE_BUF and the size of the pipe: written whole or not at all
_MOST_CHAINED: Final = 8
_MOST_FRAMES: Final = 20
_MOST_TEXT: Final = 400


def _text(value: object) -> str:
    """One line of printable ASCII: an exception's text may be the peer's."""
    try:
        return ascii(str(value))[1:-1][:_MOST_TEXT]
    except Exception:
        return "(no text)"


def _frames(trace: TracebackType | None) -> list[str]:
    lines = []
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_qualname}')
        trace = trace.tb_next
    if len(lines) > _MOST_FRAMES:
        half = _MOST_FRAMES // 2
        lines[half:-half] = [f"  ({len(lines) - 2 * half} more)"]
    return lines


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    for _ in range(_MOST_CHAINED):
        if current is None:
            return
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def words(error: BaseException) -> str:
    """What happened, the outcome first, then where, then what led to it: lines of ASCII, without a source line read."""
    lines = []
    for number, each in enumerate(_chain(error)):
        lines.append(f"{'because of ' if number else ''}{type(each).__qualname__}: {_text(each)}")
        lines += _frames(each.__traceback__)
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    """Writes ``text`` to the pipe of last words, cut to fit. Never raises, and never blocks: the pipe does not."""
    with contextlib.suppress(OSError):  # a full pipe already holds last words
        os.write(LAST_WORDS_FD, text.encode("ascii", "backslashreplace")[:_MOST_BYTES])


def last_words(error: BaseException) -> None:
    """Says what ``error`` was."""
    say(words(error))


def leave(status: int = EXIT_STATUS) -> NoReturn:
    """Ends the process now, with ``status``, by one system call."""
    os._exit(status)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    last_words(error.with_traceback(trace))
    leave()


def _unraisable(unraisable: Any) -> None:
    say(f"ignored in {_text(repr(unraisable.object))}: {_text(repr(unraisable.exc_value))}\n")


def _warning(message: object, *_: object, **__: object) -> None:
    say(f"warning: {_text(message)}\n")


def install() -> None:
    """Takes over every way in which the interpreter itself would show an error. To be called before the seal."""
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warning
