"""The service as a whole: which calls there are, who may make them, and how often."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from google.protobuf import descriptor, message, message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from septum.admin.v1 import admin_pb2

from components.admin.bounds import Bounds
from components.admin.boxcalls import BoxCalls
from components.admin.certificates import shown
from components.admin.client import Caller, Method, Receive, Send
from components.admin.configcalls import ConfigurationCalls
from components.admin.pieces import Room
from components.admin.ratelimit import Bucket, Buckets
from components.admin.roles import NEEDS, Need
from components.admin.rulecalls import RuleCalls
from components.admin.standard import Health, Reflection
from components.admin.status import Code, RpcError
from components.admin.world import World

KNOWN_RATE: Final = (50.0, 300.0)  # calls a second and at once, of one administrator
UNKNOWN_RATE: Final = (2.0, 20.0)  # of all who are nobody and come from one source
ENROLL_RATE: Final = (1.0, 10.0)  # of one source: config looks at each, and meanwhile at nothing else
ENROLL_RATE_OF_ALL: Final = (2.0, 20.0)
REMARK_RATE: Final = (1.0, 10.0)  # lines of the audit log a second and at once, of one kind and administrator
_ENROLL: Final = "/septum.admin.v1.Enrollment/Enroll"
REFLECTIONS: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_CAPITAL: Final = re.compile(r"(?<!^)(?=[A-Z])")

Run = Callable[[Caller, Receive, Send], Coroutine[Any, Any, None]]


class AdminService:
    """What all connections stand before. ``changed()`` is called when the roster has changed, ``say(event, text)`` for
    what the audit log should have.
    """

    def __init__(self, world: World, changed: Callable[[], None]) -> None:
        self._world = world
        self._bounds = Bounds()
        self._rates = Buckets(*KNOWN_RATE)
        self._unknown_rates = Buckets(*UNKNOWN_RATE)
        self._enroll_rates = Buckets(*ENROLL_RATE)
        self._enroll_rate_of_all = Bucket(*ENROLL_RATE_OF_ALL, world.clock.now)
        self._remarks = Buckets(*REMARK_RATE)
        self.calls = self.refused = 0
        services = list(admin_pb2.DESCRIPTOR.services_by_name.values())
        names = [one.full_name for one in services] + ["grpc.health.v1.Health", *REFLECTIONS]
        room = Room()
        box, rules = BoxCalls(world), RuleCalls(world, room)
        configuration = ConfigurationCalls(world, changed, self._remark, room)
        health = Health(names, lambda: world.people.is_known, world.clock)
        self._methods: dict[str, Method] = {}
        for service in services:
            of = {"Configuration": configuration, "Enrollment": configuration, "Rules": rules}.get(service.name, box)
            self._add(service, service.full_name, of, is_bounded=True)
        self._add(health_pb2.DESCRIPTOR.services_by_name["Health"], "grpc.health.v1.Health", health, is_bounded=False)
        reflection = Reflection(names, lambda caller: self._spend(caller, world.clock.now))
        for name in REFLECTIONS:
            self._methods[f"/{name}/ServerReflectionInfo"] = Method(
                f"/{name}/ServerReflectionInfo",
                reflection.info,
                _reader(reflection_pb2.ServerReflectionRequest, None),
                _write,
                goes_on=True,
            )
        if missing := self._methods.keys() ^ NEEDS.keys():
            raise ValueError(f"which role may call {', '.join(sorted(missing))}?")

    @property
    def methods(self) -> Mapping[str, Method]:
        return self._methods

    def _add(self, service: descriptor.ServiceDescriptor, name: str, of: object, *, is_bounded: bool) -> None:
        for method in service.methods:
            path = f"/{name}/{method.name}"
            if path not in NEEDS and not is_bounded:
                continue  # of a newer grpc.health than this one serves
            if is_bounded:
                self._bounds.learn(method.input_type)
            function = getattr(of, _CAPITAL.sub("_", method.name).lower())
            self._methods[path] = Method(
                path,
                _runner(function, method.client_streaming, method.server_streaming),
                _reader(message_factory.GetMessageClass(method.input_type), self._bounds if is_bounded else None),
                _write,
                goes_on=method.server_streaming,
            )

    # for each call ----------------------------------------------------------------------------------------------------

    def identify(self, certificate: bytes | None, source: str) -> Caller:
        """Who shows this certificate, as the roster has it now. Errors: RpcError."""
        if certificate is None:
            return Caller("", 0, b"", source, 0.0)
        key, until = shown(certificate)
        found = self._world.people.find(key)
        if not self._world.people.is_known and key != self._world.identity.console:
            # Of half a roster, or an old one, only the console is sure to be somebody
            raise RpcError(Code.UNAVAILABLE, "who may call is not known yet: config does not answer", retry=1.0)
        if found is None:
            raise RpcError(Code.UNAUTHENTICATED, "whose certificate this is was revoked", reason="REVOKED")
        # OpenSSL takes what any authority that the box ever had has issued
        until = min(until, self._world.issuer.taken_until(certificate))
        caller = Caller(found.name, int(found.role), key, source, until)
        if (lapsed := self.lapsed(caller)) is not None:
            raise lapsed
        return caller

    def lapsed(self, caller: Caller) -> RpcError | None:
        """Why who was identified once is nobody any more; None if he still is who he was. Who was revoked is told so
        when the roster changes.
        """
        if caller.is_known and self._world.wall() > caller.until:
            return RpcError(Code.UNAUTHENTICATED, "the certificate has expired", reason="EXPIRED")
        return None

    def admit(self, caller: Caller, path: str, now: float) -> Method:
        """The method of that path, if ``caller`` may call it now. Errors: RpcError."""
        self.calls += 1
        try:
            return self._admit(caller, path, now)
        except RpcError:
            self.refused += 1
            raise

    def _admit(self, caller: Caller, path: str, now: float) -> Method:
        method, need = self._methods.get(path), NEEDS.get(path)
        if method is None or need is None:
            raise RpcError(Code.UNIMPLEMENTED, "there is no such call")
        if caller.role < need:
            if not caller.is_known:
                raise RpcError(Code.UNAUTHENTICATED, "takes an administrator's certificate", reason="NO_CERTIFICATE")
            self._remark(caller, "refused", f"{caller.name} from {caller.source}: {path} takes {need}")
            why = f"takes {need}; {caller.name} is {Need(caller.role)}"
            raise RpcError(Code.PERMISSION_DENIED, why, reason="NOT_PERMITTED")
        self._spend(caller, now)
        if path == _ENROLL:
            wait = self._enroll_rates.take(caller.source, now)
            if not wait and not self._enroll_rate_of_all.take(now):
                wait = self._enroll_rate_of_all.wait
            _wait(wait)
        return method

    def _spend(self, caller: Caller, now: float) -> None:
        """Takes one of what ``caller`` may do. Errors: RpcError (RESOURCE_EXHAUSTED)."""
        rates, name = (self._rates, caller.name) if caller.is_known else (self._unknown_rates, caller.source)
        _wait(rates.take(name, now))

    def _remark(self, caller: Caller, event: str, text: str) -> None:
        """A line for the audit log, unless ``caller`` has caused many of the kind: he cannot fill it alone."""
        if not self._remarks.take(f"{event} {caller.name}", self._world.clock.now):
            self._world.say(event, text)

    def failed(self, error: Exception) -> RpcError:
        """What a caller is told of an error that should not be; the log has the rest."""
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_qualname}:{where.tb_lineno}" if where is not None else "?"
        self._world.say("failed", f"{type(error).__name__} in {place}: {error}"[:400])
        return RpcError(Code.INTERNAL, "this should not happen; the box's log has more")


def _wait(seconds: float) -> None:
    """Errors: RpcError (RESOURCE_EXHAUSTED), if there is anything to wait for."""
    if seconds:
        raise RpcError(Code.RESOURCE_EXHAUSTED, "too many calls: wait a little", reason="RATE", retry=seconds)


def _runner(function: Callable[..., Any], is_stream: bool, goes_on: bool) -> Run:
    """``function`` as a Method has it, whatever it takes and gives."""
    if is_stream and goes_on:
        return function

    async def run(caller: Caller, receive: Receive, send: Send) -> None:
        if is_stream:
            await send(await function(caller, receive))
            return
        request = await receive()
        if request is None:
            raise RpcError(Code.INVALID_ARGUMENT, "has no request")
        if await receive() is not None:
            raise RpcError(Code.INVALID_ARGUMENT, "has two requests, and takes one")
        if goes_on:
            await function(caller, request, send)
        else:
            await send(await function(caller, request))

    return run


def _reader(kind: type[message.Message], bounds: Bounds | None) -> Callable[[bytes], message.Message]:
    def read(untrusted: bytes) -> message.Message:
        parsed = kind()
        try:
            parsed.ParseFromString(untrusted)
        except message.DecodeError:
            raise RpcError(Code.INVALID_ARGUMENT, f"is no {kind.DESCRIPTOR.name}", path="(request)") from None
        if bounds is not None:
            bounds.check(parsed)
        return parsed

    return read


def _write(reply: message.Message) -> bytes:
    return reply.SerializeToString()
