"""A server with the endpoints that a soak needs, and the faults named by its arguments; prints its address.

python -m tests.bench.soak_server [refuse] [cut] [leak] [hold] [differ]
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

from aiohttp import web

_EVERY = 10
"""Of so many requests one is refused, and one cut off."""
_LEAK_BYTES = 1 << 20


class SoakServer:
    def __init__(self, faults: set[str]) -> None:
        self._faults = faults
        self._requests = 0
        self._leaked: list[bytearray] = []

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "fake", "owned_by": "fake", "max_model_len": 512}]})

    async def metrics(self, _: web.Request) -> web.Response:
        held = 0.25 if "hold" in self._faults else 0.0
        lines = [f"vllm:{name} 0.0" for name in ("num_requests_running", "num_requests_waiting")]
        return web.Response(text="\n".join([*lines, f'vllm:kv_cache_usage_perc{{engine="0"}} {held}', ""]))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self._requests += 1
        alone = self._requests <= 8  # as many probes are asked before the load
        if "refuse" in self._faults and not alone and self._requests % _EVERY == 0:
            return web.Response(status=503, text="the engine is gone")
        if "leak" in self._faults:
            self._leaked.append(bytearray(b"x" * _LEAK_BYTES))
        ids = self._ids(body, alone)
        await asyncio.sleep(0.05)
        if not body["stream"]:
            return web.json_response({"choices": [{"token_ids": ids}], "usage": _usage(ids)})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for id_ in ids:
            await response.write(b'data: {"choices":[{"text":"a","token_ids":[%d]}]}\n\n' % id_)
            await asyncio.sleep(0.001)
            if "cut" in self._faults and not alone and self._requests % _EVERY == 1:
                await response.write(b'data: {"error":{"message":"out of luck"}}\n\n')
                return response
        usage = web.json_response({"choices": [], "usage": _usage(ids)}).text
        await response.write(f"data: {usage}\n\ndata: [DONE]\n\n".encode())
        return response

    def _ids(self, body: dict[str, Any], alone: bool) -> list[int]:
        ids = list(range(body["max_tokens"]))
        if "differ" in self._faults and not alone and body.get("return_token_ids"):
            ids[random.choice([3, 5])] = 99
        return ids


def _usage(ids: list[int]) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": len(ids)}


async def main() -> None:
    server = SoakServer(set(sys.argv[1:]))
    app = web.Application()
    app.add_routes([web.get("/v1/models", server.models), web.get("/metrics", server.metrics)])
    app.add_routes([web.post(path, server.answer) for path in ("/v1/completions", "/v1/chat/completions")])
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
