"""How a call ends if it does not succeed: gRPC's codes, and details that a machine can read.

Sources: google.rpc.Code, google.rpc.Status and google/rpc/error_details.proto. Details are BadRequest (which field, and
what is wrong with it), ErrorInfo (a reason by name, domain "septum") and RetryInfo.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from google.rpc import error_details_pb2, status_pb2

DOMAIN: Final = "septum"


class Code(IntEnum):
    """google.rpc.Code."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """A call is refused. ``path``: the field that ``text`` is about; ``reason``: its name for machines; ``retry``:
    seconds after which it may be tried again.
    """

    def __init__(self, code: Code, text: str, *, path: str = "", reason: str = "", retry: float = 0.0) -> None:
        super().__init__(text)
        self.code = code
        self.text = f"{path}: {text}" if path else text
        self.path = path
        self.reason = reason
        self.retry = retry
        self._why = text

    def details(self) -> bytes:
        """A google.rpc.Status; empty if there is nothing to add."""
        said: list[Any] = []
        if self.path:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.path, description=self._why)
            said.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.reason:
            said.append(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN))
        if self.retry:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromMilliseconds(int(self.retry * 1000))
            said.append(info)
        if not said:
            return b""
        status = status_pb2.Status(code=int(self.code), message=self.text)
        for one in said:
            status.details.add().Pack(one)
        packed: bytes = status.SerializeToString()
        return packed
