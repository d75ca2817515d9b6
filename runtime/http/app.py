"""Paths and who answers them."""

from __future__ import annotations

import hmac
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from oi.runtime.http.chat import create_chat_completion
from oi.runtime.http.completions import create_completion
from oi.runtime.http.errors import ApiError, errors_as_openai
from oi.runtime.http.metrics import CONTENT_TYPE
from oi.runtime.http.request_log import CLIENT_LEFT, log_request
from oi.runtime.http.responses import Health, Model, ModelList, Version, json_response
from oi.runtime.http.service import ARRIVED_AT, MAX_BODY_BYTES, SERVICE, Service

__all__ = ["make_app"]

_OPEN = {"/health", "/"}
"""Asked for without a key: they tell nothing. (The page asks for the key, and sends it for /status.json.)"""

_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
)


def make_app(service: Service, api_key: str | None) -> web.Application:
    """With `api_key`, everything but /health and the page at / asks for it."""
    guards = [] if api_key is None else [_needs_key(api_key)]
    app = web.Application(middlewares=[_observed, errors_as_openai, *guards], client_max_size=MAX_BODY_BYTES)
    app[SERVICE] = service
    openapi = _OpenApi(authenticated=api_key is not None)
    app.add_routes(
        [
            web.post("/v1/completions", create_completion),
            web.post("/v1/chat/completions", create_chat_completion),
            web.get("/v1/models", _models),
            web.get("/v1/models/{model:.+}", _model),
            web.get("/health", _health),
            web.get("/metrics", _metrics),
            web.get("/status.json", _status),
            web.get("/", _page),
            web.get("/version", _version),
            web.get("/openapi.json", openapi.answer),
        ]
    )
    return app


def _needs_key(api_key: str) -> Middleware:
    expected = f"Bearer {api_key}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if request.path not in _OPEN and not hmac.compare_digest(given, expected):
            message = "the API key is missing or wrong; send it as `Authorization: Bearer KEY`"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    return check


@web.middleware
async def _observed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counted while it is served, and logged at its end."""
    service = request.app[SERVICE]
    service.requests += 1
    began = request[ARRIVED_AT] = time.perf_counter()
    status = CLIENT_LEFT
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        service.requests -= 1
        log_request(request, status, began, time.perf_counter())


async def _health(request: web.Request) -> web.Response:
    """200 means that the engine makes progress and requests are taken."""
    service = request.app[SERVICE]
    service.check_open()
    if not service.client.alive:
        raise ApiError(503, "the engine has given no sign of life for too long", code="stalled")
    return json_response(Health())


def _served(service: Service) -> Model:
    return Model(
        id=service.name, created=service.created, root=service.root, max_model_len=service.limits.max_model_len
    )


async def _models(request: web.Request) -> web.Response:
    return json_response(ModelList(data=[_served(request.app[SERVICE])]))


async def _model(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    service.check_name(request.match_info["model"])
    return json_response(_served(service))


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[SERVICE].metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


async def _status(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    return json_response(service.history.report(service.name, service.state))


async def _page(request: web.Request) -> web.Response:
    page = files("oi.runtime.http").joinpath("status.html").read_bytes()
    headers = {"Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "no-cache"}
    return web.Response(body=page, content_type="text/html", charset="utf-8", headers=headers)


async def _version(request: web.Request) -> web.Response:
    return json_response(Version(version=_own_version()))


def _own_version() -> str:
    try:
        return version("oi")
    except PackageNotFoundError:
        return "unknown"


class _OpenApi:
    """Made when first asked for."""

    def __init__(self, *, authenticated: bool) -> None:
        self._authenticated = authenticated
        self._body: bytes | None = None

    async def answer(self, request: web.Request) -> web.Response:
        if self._body is None:
            from oi.runtime.http.openapi import document

            service = request.app[SERVICE]
            self._body = msgspec.json.encode(document(_own_version(), service.name, authenticated=self._authenticated))
        return web.Response(body=self._body, content_type="application/json")
