"""The document that describes the API, with how one shows who one is."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from aitask_cli.gateway.shapes import CompletionRequest

_WITHOUT_TOKEN = ("/health", "/ready")


def document(app: FastAPI, *, needed: bool) -> dict[str, Any]:
    """Make the OpenAPI document, once.

    Args:
        needed: whether a token must be shown.
    """
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemes = {"token": {"type": "http", "scheme": "bearer", "description": "A token of AITASK_GATEWAY_TOKENS."}}
        made.setdefault("components", {})["securitySchemes"] = schemes
        made["security"] = [{"token": []}] if needed else [{}, {"token": []}]
        for path in _WITHOUT_TOKEN:
            for operation in made["paths"][path].values():
                operation["security"] = [{}, {"token": []}]
        _add_body(made, "/v1/chat/completions")
        app.openapi_schema = made
    return app.openapi_schema


def _add_body(made: dict[str, Any], path: str) -> None:
    """Describe the body that the route reads by itself."""
    schema = TypeAdapter(CompletionRequest).json_schema(ref_template="#/components/schemas/{model}")
    made["components"]["schemas"] |= schema.pop("$defs")
    made["paths"][path]["post"]["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
