"""The other domains, as coroutines ask them: a reply, or a refusal that a caller can be told."""

from __future__ import annotations

from typing import Any, Final, Protocol

from components.admin.status import Code, RpcError
from components.admin.tasks import Promise

SECONDS: Final = 5.0


class AskerLike(Protocol):
    """``appliance.guest.asking.Asker``, or what a test has in its place."""

    def ask(self, request: Any, then: Any, seconds: float = ...) -> None: ...


class Other:
    """A domain that can be asked. ``name`` is what a caller is told it is; ``asker`` None if this box has none."""

    def __init__(self, name: str, asker: AskerLike | None) -> None:
        self.name = name
        self._asker = asker

    @property
    def is_there(self) -> bool:
        """Whether this box has such a domain."""
        return self._asker is not None

    async def ask(self, request: Any, seconds: float = SECONDS) -> Any:
        """The reply. Errors: RpcError (UNAVAILABLE, UNIMPLEMENTED)."""
        if self._asker is None:
            raise RpcError(Code.UNIMPLEMENTED, f"this box has no {self.name} that could be asked")
        promise: Promise[Any] = Promise()
        self._asker.ask(request, promise.keep, seconds)
        answer = await promise
        if isinstance(answer, Exception):
            why = f"{self.name} does not answer: it is being built anew, or busy"
            raise RpcError(Code.UNAVAILABLE, why, reason="AWAY", retry=1.0)
        return answer
