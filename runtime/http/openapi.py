"""`/openapi.json`, made from the types that requests are decoded into and answers are encoded from."""

from __future__ import annotations

from typing import Any

import msgspec

from oi.runtime.http.protocol import ChatCompletionRequest, CompletionRequest
from oi.runtime.http.responses import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    Error,
    Health,
    Model,
    ModelList,
    Version,
)
from oi.runtime.http.status import StatusReport

__all__ = ["document"]

_TYPES = (
    CompletionRequest,
    ChatCompletionRequest,
    Completion,
    ChatCompletion,
    ChatCompletionChunk,
    ModelList,
    Model,
    Health,
    StatusReport,
    Version,
    Error,
)
_ERRORS = {
    "400": "The request is not one that can be served; the message says why.",
    "401": "The API key is missing or wrong.",
    "404": "There is no such model.",
    "413": "The body is too long.",
    "429": "Too many requests wait already; Retry-After says when to come again.",
    "500": "The server failed.",
    "503": "The server is loading or shutting down.",
}


def document(version: str, model: str, *, authenticated: bool) -> dict[str, Any]:
    """OpenAPI 3.1. `model` is the one name that requests may give."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    for request in ("CompletionRequest", "ChatCompletionRequest"):
        schemas[request]["properties"]["model"] = {"enum": [model, None], "default": None}
    components: dict[str, Any] = {"schemas": schemas}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "oi", "version": version, "description": "OpenAI's API for the model served here."},
        "paths": _paths(),
        "components": components,
    }
    if authenticated:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
        for path in ("/health", "/"):
            found["paths"][path]["get"]["security"] = []
    return found


def _paths() -> dict[str, Any]:
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    metrics = {"200": {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    page = {"200": {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}}
    return {
        "/v1/completions": {"post": _generate("createCompletion", "CompletionRequest", "Completion", "Completion")},
        "/v1/chat/completions": {
            "post": _generate("createChatCompletion", "ChatCompletionRequest", "ChatCompletion", "ChatCompletionChunk")
        },
        "/v1/models": {"get": _get("listModels", "ModelList")},
        "/v1/models/{model}": {"get": {**_get("retrieveModel", "Model"), "parameters": [name]}},
        "/health": {"get": _get("health", "Health")},
        "/version": {"get": _get("version", "Version")},
        "/status.json": {"get": _get("status", "StatusReport")},
        "/": {"get": {"operationId": "page", "responses": {**page, **_errors()}}},
        "/metrics": {"get": {"operationId": "metrics", "responses": {**metrics, **_errors()}}},
        "/openapi.json": {
            "get": {
                "operationId": "openapi",
                "responses": {
                    "200": {"description": "This.", "content": {"application/json": {"schema": {"type": "object"}}}},
                    **_errors(),
                },
            }
        },
    }


def _generate(id: str, request: str, response: str, chunk: str) -> dict[str, Any]:
    data = {"type": "string", "description": f"A {chunk} or an Error in JSON; [DONE] at the end."}
    event = {"type": "object", "required": ["data"], "properties": {"data": data}}
    return {
        "operationId": id,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(request)}}},
        "responses": {
            "200": {
                "description": "The answer; with `stream`, its events.",
                "content": {"application/json": {"schema": _ref(response)}, "text/event-stream": {"schema": event}},
            },
            **_errors(),
        },
    }


def _get(id: str, response: str) -> dict[str, Any]:
    ok = {"description": "Found.", "content": {"application/json": {"schema": _ref(response)}}}
    return {"operationId": id, "responses": {"200": ok, **_errors()}}


def _errors() -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("Error")}}
    return {status: {"description": text, "content": content} for status, text in _ERRORS.items()}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
