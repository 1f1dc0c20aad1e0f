"""LeRobot's gRPC: refused in words. Each of its payloads is a pickle, which runs what its sender likes when opened."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import grpc  # pyright: ignore[reportMissingModuleSource]
import grpc.aio  # pyright: ignore[reportMissingModuleSource]

from vlakit.serving.service import Service

WHY = "LeRobot's messages are pickles, and opening one runs what its sender likes: ask in openpi's or GR00T's dialect"


class LeRobot:
    """See the module: every call ends in UNIMPLEMENTED, and nothing of it is read."""

    name: ClassVar[str] = "lerobot"
    port: ClassVar[int] = 8080
    cameras: ClassVar[dict[str, str]] = {}
    says_dataset: ClassVar[bool] = True
    web: ClassVar[bool] = False

    def __init__(self, service: Service, cameras: dict[str, str]) -> None:
        self.service = service

    async def listen(self, host: str, port: int) -> None:
        """Take the port."""
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((_Refusal(),))
        self.server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        await self.server.start()

    async def serve(self) -> None:
        """Refuse until cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.server.stop(1)


class _Refusal(grpc.GenericRpcHandler):
    """Whatever is called."""

    def service(self, handler_call_details: Any) -> Any:
        async def refuse(requests: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, WHY)

        return grpc.stream_unary_rpc_method_handler(refuse)
