"""Every error leaves in OpenAI's shape, whoever raised it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.typedefs import Handler

from oi.runtime.errors import EngineDead, OiError, Overloaded, RequestError
from oi.runtime.http.responses import Error, ErrorBody

__all__ = ["ApiError", "as_api_error", "errors_as_openai", "validation_error"]

_log = logging.getLogger("oi.http")

_MENDS = {
    "suffix": "inserting before a suffix is not supported; leave `suffix` out",
    "best_of": "choosing among more than `n` completions is not supported; leave `best_of` out",
    "min_tokens": "`min_tokens` is not supported; leave it out, or set `ignore_eos`",
    "response_format": "only plain text is supported; leave `response_format` out",
    "tool_choice": 'the model cannot be made to call a tool; set `tool_choice` to "auto" or "none"',
}
"""For fields that admit only what asks for nothing: why another value is refused."""


class ApiError(Exception):
    """An HTTP error with OpenAI's fields."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        type = "server_error" if status >= 500 else "invalid_request_error"
        self.body = msgspec.json.encode(Error(error=ErrorBody(message=message, type=type, param=param, code=code)))

    def response(self) -> web.Response:
        return web.Response(
            status=self.status, body=self.body, content_type="application/json", headers=self.headers or {}
        )


def as_api_error(error: BaseException) -> ApiError:
    """What to tell the client of an error. Unknown ones are logged and not shown."""
    match error:
        case ApiError():
            return error
        case RequestError():
            return ApiError(400, str(error), param=error.param)
        case Overloaded():
            return ApiError(429, str(error), code="too_many_requests", headers={"Retry-After": "1"})
        case EngineDead():
            return ApiError(500, str(error), code="engine_dead")
        case OiError():
            return ApiError(500, str(error))
        case web.HTTPRequestEntityTooLarge():
            return ApiError(413, f"{(error.text or '').rstrip('.')}; send a shorter body", code="body_too_large")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"{error.method} is not allowed here; use {allowed}"
            return ApiError(405, message, code="method_not_allowed", headers={"Allow": allowed})
        case web.HTTPNotFound():
            return ApiError(404, "no such path; /openapi.json lists those there are", code="not_found")
        case web.HTTPException():
            return ApiError(error.status, error.text or error.reason)
        case ClientPayloadError() | web.RequestPayloadError():
            return ApiError(400, f"the body cannot be read: {error}", code="invalid_body")
    _log.error("a request failed inside of the server", exc_info=error)
    return ApiError(500, "the server failed on this request; its log says more", code="internal_error")


@web.middleware
async def errors_as_openai(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as e:
        return as_api_error(e).response()


def validation_error(error: msgspec.MsgspecError | UnicodeDecodeError | RecursionError) -> ApiError:
    """Of a body that is not what the endpoint takes."""
    if isinstance(error, RecursionError):
        return ApiError(400, "the body is nested too deeply", code="invalid_json")
    if not isinstance(error, msgspec.ValidationError):
        return ApiError(400, f"the body is not valid JSON: {error}", code="invalid_json")
    found = re.fullmatch(r"(.*?)(?: - at (?:`key` in )?`\$\.?(.*)`)?", str(error), re.DOTALL)
    assert found is not None
    what, param = found[1], found[2] or None
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        param = f"{param}.{unknown[1]}" if param else unknown[1]
        return ApiError(400, f"unknown field `{param}`; remove it, or check its spelling", param=param)
    if missing := re.fullmatch(r"Object missing required field `(.*)`", what):
        param = f"{param}.{missing[1]}" if param else missing[1]
        return ApiError(400, f"`{param}` is missing; it is required", param=param)
    mend = _MENDS.get(param.split(".")[0].split("[")[0]) if param else None
    where = f"`{param}`: " if param else "the body: "
    return ApiError(400, where + (mend or what[0].lower() + what[1:]), param=param, code="invalid_value")
