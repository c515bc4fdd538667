"""gRPC's own services: health (grpc.health.v1) and reflection (grpc.reflection.v1 and v1alpha), by which stock tools
find out what there is to call. Sources: grpc/grpc-proto, grpc/health/v1/health.proto and
grpc/reflection/v1/reflection.proto; v1alpha has the same messages under another name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from google.protobuf import descriptor, descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from components.admin.client import Caller
from components.admin.status import Code, RpcError
from components.admin.tasks import Clock

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_LONGEST_NAME: Final = 256
_LOOK: Final = 5.0  # seconds between two looks at what is watched


class Health:
    """Whether the services are there: they are, as long as this domain runs and ``is_serving()``."""

    def __init__(self, services: Sequence[str], is_serving: Callable[[], bool], clock: Clock) -> None:
        self._services = frozenset(services) | {""}
        self._is_serving = is_serving
        self._clock = clock

    def _state(self) -> int:
        kinds = health_pb2.HealthCheckResponse
        return int(kinds.SERVING if self._is_serving() else kinds.NOT_SERVING)

    async def check(self, caller: Caller, request: Any) -> Any:
        if request.service not in self._services:
            raise RpcError(Code.NOT_FOUND, "there is no such service", path="service")
        return health_pb2.HealthCheckResponse(status=self._state())

    async def list(self, caller: Caller, request: Any) -> Any:
        state = health_pb2.HealthCheckResponse(status=self._state())
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(sorted(self._services), state))

    async def watch(self, caller: Caller, request: Any, send: Send) -> None:
        said = None
        while True:
            state = self._state()
            if request.service not in self._services:
                state = int(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if state != said:
                said = state
                await send(health_pb2.HealthCheckResponse(status=state))
            await self._clock.sleep(_LOOK)


class Reflection:
    """Says what the services look like. Files are described as they were compiled, with those they need. One call may
    ask for many things: each but the first is a call of its own to ``spend(caller)``, which raises RpcError.
    """

    def __init__(self, services: Sequence[str], spend: Callable[[Caller], None]) -> None:
        self._services = sorted(services)
        self._spend = spend
        self._pool = descriptor_pool.Default()

    async def info(self, caller: Caller, receive: Receive, send: Send) -> None:
        is_first = True
        while (request := await receive()) is not None:
            if not is_first:
                self._spend(caller)
            is_first = False
            reply = reflection_pb2.ServerReflectionResponse(
                valid_host=request.host[:_LONGEST_NAME], original_request=request
            )
            self._answer(request, reply)
            await send(reply)

    def _answer(self, request: Any, reply: Any) -> None:
        try:
            match request.WhichOneof("message_request"):
                case "list_services":
                    for name in self._services:
                        reply.list_services_response.service.add(name=name)
                case "file_by_filename":
                    self._files(self._pool.FindFileByName(request.file_by_filename), reply)
                case "file_containing_symbol":
                    self._files(self._pool.FindFileContainingSymbol(request.file_containing_symbol), reply)
                case "file_containing_extension":
                    asked = request.file_containing_extension
                    extended = self._pool.FindMessageTypeByName(asked.containing_type)
                    found: Any = self._pool.FindExtensionByNumber(extended, asked.extension_number)
                    self._files(found.file, reply)
                case "all_extension_numbers_of_type":
                    extended = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                    reply.all_extension_numbers_response.base_type_name = extended.full_name
                    for one in self._pool.FindAllExtensions(extended):
                        reply.all_extension_numbers_response.extension_number.append(one.number)
                case _:
                    self._error(reply, Code.INVALID_ARGUMENT, "asks for nothing that is known here")
        except KeyError:
            self._error(reply, Code.NOT_FOUND, "there is none of that name")

    @staticmethod
    def _error(reply: Any, code: Code, why: str) -> None:
        reply.error_response.error_code = int(code)
        reply.error_response.error_message = why

    @staticmethod
    def _files(file: descriptor.FileDescriptor, reply: Any) -> None:
        seen: dict[str, descriptor.FileDescriptor] = {}
        waiting = [file]
        while waiting:
            one = waiting.pop()
            if one.name not in seen:
                seen[one.name] = one
                waiting += one.dependencies
        for one in seen.values():
            described = descriptor_pb2.FileDescriptorProto()
            one.CopyToProto(described)
            reply.file_descriptor_response.file_descriptor_proto.append(described.SerializeToString())
