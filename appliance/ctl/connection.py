"""A connection to a box: calls with deadlines, what they wait for said aloud, and errors that say what to do next."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

# gRPC speaks of its own affairs on standard error
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from septum.admin.v1 import admin_pb2 as pb
from septum.admin.v1 import admin_pb2_grpc as services

from appliance.ctl import diagnose, identity, reach, say
from appliance.ctl.contexts import SERVER_NAME, Context, host_and_port
from appliance.ctl.trouble import Exit, Place, Trouble
from appliance.signed.statements import public_key

TRANSFER: Final = 900.0  # ... for a whole section, which is 4 MiB at most, over a slow link
_LOOK: Final = 0.1
_PEERS: Final = 1000  # of a page
_LARGEST: Final = 16 << 20  # bytes of an answer
_DETAILS: Final = "grpc-status-details-bin"

_OPTIONS: Final = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.max_receive_message_length", _LARGEST),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
)


class Box:
    """The box of ``context``; a context manager. Errors of everything: Trouble.

    ``is_known``: we show our certificate; not so when we enroll.
    """

    def __init__(self, context: Context, deadline: float = reach.DEADLINE, is_known: bool = True) -> None:
        self.context = context
        self.deadline = deadline
        if is_known:
            diagnose.own_certificate(context)
        host, port = host_and_port(context.address)
        credentials = grpc.ssl_channel_credentials(
            context.root_pem.encode(),
            context.tls_key_pem.encode() if is_known else None,
            context.chain_pem.encode() if is_known else None,
        )
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._channel = grpc.secure_channel(target, credentials, options=_OPTIONS)
        self.box = services.BoxStub(self._channel)
        self.peers = services.PeersStub(self._channel)
        self.keys = services.KeysStub(self._channel)
        self.rules = services.RulesStub(self._channel)
        self.configuration = services.ConfigurationStub(self._channel)
        self.audit = services.AuditStub(self._channel)
        self.enrollment = services.EnrollmentStub(self._channel)
        self._is_known = is_known

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._is_known:
                self._renew()
        finally:
            self._channel.close()

    def _renew(self) -> None:
        """A fresh certificate, once the one that we have is near its end."""
        if not identity.validity(self.context.chain_pem).wants_renewal(time.time()):
            return
        try:
            self.renew()
        except Trouble as trouble:
            end = identity.day(identity.validity(self.context.chain_pem).end)
            say.warn(f"your certificate ends {end}, and the box does not renew it: {trouble}")

    def renew(self) -> None:
        """A fresh certificate for a new key, written to the context."""
        key = identity.new_tls_key()
        request = identity.request(key, self.context.administrator)
        reply = self.ask(self.enrollment.Renew, pb.RenewRequest(request=request), "a new certificate")
        context = self.context
        try:
            before = identity.validity(context.chain_pem).end
            identity.check_certificate(reply.chain, context.root_pem, key, public_key(context.seed()), before)
        except ValueError as error:
            why = f"{context.address} gave a certificate that is of no use: {error}; yours is as it was"
            raise Trouble(
                Exit.NOT_BELIEVED, why, "septumctl renew, later; septumctl logs", reason="CERTIFICATE"
            ) from None
        context.certify(reply.chain, key)

    # calls ------------------------------------------------------------------------------------------------------------

    def ask(self, method: Any, request: Any, what: str, seconds: float = 0.0) -> Any:
        """The reply to ``request``; ``what`` it is, for who waits. Who asks too fast is made to wait."""
        until = time.monotonic() + (seconds or self.deadline)
        while True:
            try:
                return self._finish(method.future(request, timeout=max(0.1, until - time.monotonic())), what)
            except Trouble as trouble:
                if trouble.reason != "RATE" or time.monotonic() + trouble.wait > until:
                    raise
                time.sleep(max(trouble.wait, _LOOK))

    def send(self, method: Any, requests: Iterable[Any], what: str) -> Any:
        """The reply to all ``requests`` of a stream."""
        return self._finish(method.future(iter(requests), timeout=TRANSFER), what)

    def _finish(self, call: Any, what: str) -> Any:
        try:
            with say.waiting(f"waiting for {what} from {self.context.address}"):
                while True:
                    try:
                        return call.result(timeout=_LOOK)
                    except grpc.FutureTimeoutError:
                        say.tick()
        except grpc.RpcError as error:
            raise self._trouble(error, what) from None
        except BaseException:
            call.cancel()
            raise

    def stream(self, method: Any, request: Any, what: str, seconds: float | None = None) -> Iterator[Any]:
        """The replies to ``request``, one after the other; without an end if ``seconds`` is None."""
        call = method(request, timeout=seconds)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._trouble(error, what) from None
        finally:
            call.cancel()

    def everybody(self, tell: Callable[[float], None] = lambda done: None) -> list[Any]:
        """All peers, as the box shows them."""
        from appliance.signed.peers import MOST_PEERS

        found: list[Any] = []
        tokens = [""]
        while True:
            request = pb.ListPeersRequest(page_size=_PEERS, page_token=tokens[-1])
            page = self.ask(self.peers.ListPeers, request, "the list of peers")
            found += page.peers
            tell(len(found) / max(page.total, 1))
            if not page.next_page_token or not page.peers:
                return found
            tokens.append(page.next_page_token)
            if tokens[-1] in tokens[:-1] or len(found) > MOST_PEERS:
                why = f"{self.context.address} shows peers without an end"
                raise Trouble(Exit.NOT_BELIEVED, why, "septumctl domains")

    # what goes wrong --------------------------------------------------------------------------------------------------

    def _trouble(self, error: grpc.RpcError, what: str) -> Trouble:
        code, said, reason, places, wait = _read(error)
        address = self.context.address
        if reason in _REASONS:
            number, then = _REASONS[reason]
            return Trouble(number, said, then, places, reason, wait)
        match code:
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
                if self._is_known and (found := diagnose.explain(self.context)):
                    return found
                if code is grpc.StatusCode.UNAVAILABLE:
                    return Trouble(Exit.UNREACHED, f"{address} hung up: {said}", "the same again", reason=code.name)
                why = f"{address} did not give {what} within {self.deadline:g} s"
                return Trouble(Exit.UNREACHED, why, "more time: septumctl --timeout 60 …", reason=code.name)
            case grpc.StatusCode.UNAUTHENTICATED:
                why = f"{address} does not know you: {said}"
                return Trouble(Exit.NOT_ALLOWED, why, _NEW, reason=reason or code.name)
            case grpc.StatusCode.PERMISSION_DENIED:
                return Trouble(Exit.NOT_ALLOWED, said, "septumctl whoami; septumctl admins list", places, code.name)
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                then = f"again in {max(wait, 1):.0f} s" if wait else "again in a while"
                why = f"{address} has had enough: {said}"
                return Trouble(Exit.NOT_ALLOWED, why, then, places, reason or code.name, wait)
            case grpc.StatusCode.INVALID_ARGUMENT:
                return Trouble(Exit.INVALID, said, "", places, code.name)
            case grpc.StatusCode.ABORTED:
                return Trouble(Exit.OVERTAKEN, said, _STALE, places, code.name)
            case grpc.StatusCode.UNIMPLEMENTED:
                why = f"{address} does not know how to give {what}: it is older than this septumctl"
                return Trouble(Exit.REFUSED, why, "septumctl version", reason=code.name)
            case grpc.StatusCode.NOT_FOUND | grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.ALREADY_EXISTS:
                return Trouble(Exit.REFUSED, said, "", places, code.name)
            case _:
                why = f"{address} failed at {what}: {code.name.lower().replace('_', ' ')}: {said}"
                return Trouble(Exit.REFUSED, why, "septumctl domains; septumctl logs", places, code.name)


_NEW: Final = "ask a security officer whether you are on the list (septumctl admins list), or for a new invitation"
_STALE: Final = "septumctl config diff --theirs, then septumctl config merge, then commit again"

_REASONS: Final[Mapping[str, tuple[Exit, str]]] = {
    "MALFORMED": (Exit.INVALID, "septumctl version: is the box newer than this septumctl?"),
    "BAD_SIGNATURE": (Exit.NOT_ALLOWED, _NEW),
    "NOT_PERMITTED": (Exit.NOT_ALLOWED, "septumctl whoami; who may more: septumctl admins list"),
    "STALE": (Exit.OVERTAKEN, _STALE),
    "INVALID": (Exit.INVALID, "septumctl config edit"),
    "PENDING": (Exit.OVERTAKEN, "septumctl config confirm, or wait until it is rolled back (septumctl config show)"),
    "AWAY": (Exit.UNREACHED, "nothing was changed; septumctl domains, then the same again"),
    "NO_ROOM": (Exit.REFUSED, "make it smaller"),
    "UNCHANGED": (Exit.REFUSED, ""),
    "UNKNOWN": (Exit.REFUSED, "septumctl config history"),
}
"""What to do about a refusal of the box's config, by the name of its kind (appliance/signed/refusal.py)."""


def _read(error: Any) -> tuple[grpc.StatusCode, str, str, list[Place], float]:
    """Code, text, reason (ErrorInfo), places (BadRequest) and seconds to wait (RetryInfo) of an error."""
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    code: grpc.StatusCode = error.code()
    said = say.clean(error.details() or code.value[1])
    reason, places, wait = "", [], 0.0
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS:
            continue
        status = status_pb2.Status()
        try:
            status.ParseFromString(value)
            for detail in status.details:
                info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
                retry = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    reason = info.reason
                elif detail.Unpack(bad):
                    places += [Place(say.clean(one.field), say.clean(one.description)) for one in bad.field_violations]
                elif detail.Unpack(retry):
                    wait = max(0.0, retry.retry_delay.ToTimedelta().total_seconds())
        except DecodeError:
            continue  # the code and the text stand without
    return code, said, reason, places, wait


def pieces(content: Mapping[int, bytes], tell: Callable[[float], None]) -> Iterator[Any]:
    """The sections of a commit in pieces of at most 60 KiB, and how far it is as they leave."""
    total = sum(map(len, content.values()))
    sent = 0
    for section, data in content.items():
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            yield pb.SubmitRequest(piece=pb.SubmitPiece(section=pb.Section.ValueType(section), data=piece))
            sent += len(piece)
            tell(sent / total)


_PIECE: Final = 61_440

__all__ = ["Box", "pieces"]
