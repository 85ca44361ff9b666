"""A small shop, described in every form that bundles are generated from."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

MONEY: dict[str, Any] = {
    "type": "object",
    "required": ["amount", "currency"],
    "properties": {
        "amount": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 500, "multipleOf": 0.01},
        "currency": {"type": "string", "enum": ["EUR", "USD"]},
    },
}
LINE: dict[str, Any] = {
    "type": "object",
    "required": ["sku", "quantity"],
    "properties": {
        "sku": {"type": "string", "pattern": "^[A-Z]-[0-9]+$"},
        "quantity": {"type": "integer", "minimum": 1},
        "part_of": {"$ref": "#/components/schemas/Line"},
    },
}
NEW_ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["customer", "lines"],
    "properties": {
        "customer": {"type": "string", "format": "email"},
        "lines": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Line"}},
        "note": {"type": "string", "maxLength": 200, "nullable": True},
    },
}


def _json(schema: Any, **beside: Any) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, **beside}}}


def openapi() -> dict[str, Any]:
    """Return an OpenAPI 3.0 document."""
    small = {"amount": 12.5, "currency": "EUR", "order": None}
    refund = {
        "allOf": [
            {"$ref": "#/components/schemas/Money"},
            {
                "type": "object",
                "required": ["order", "id"],
                "properties": {
                    "order": {"type": "string", "format": "uuid", "nullable": True},
                    "id": {"type": "integer", "readOnly": True},
                },
            },
        ]
    }
    order = {"customer": "someone@example.com", "lines": [{"sku": "A-1", "quantity": 2}]}
    return {
        "openapi": "3.0.3",
        "info": {"title": "Shop", "version": "1"},
        "paths": {
            "/orders": {
                "get": {
                    "operationId": "listOrders",
                    "parameters": [
                        {"name": "status", "in": "query", "schema": {"enum": ["open", "closed"]}, "example": "open"},
                        {
                            "name": "limit",
                            "in": "query",
                            "schema": {"type": "integer", "format": "int32", "minimum": 1},
                        },
                        {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                    ],
                },
                "post": {
                    "operationId": "createOrder",
                    "requestBody": _json({"$ref": "#/components/schemas/NewOrder"}, example=order),
                },
            },
            "/orders/{id}": {
                "parameters": [{"name": "id", "in": "path", "schema": {"type": "string", "format": "uuid"}}],
                "get": {"operationId": "getOrder"},
                "delete": {},
            },
            "/refunds": {
                "post": {"operationId": "refund", "requestBody": _json(refund, examples={"small": {"value": small}})}
            },
        },
        "components": {"schemas": deepcopy({"Money": MONEY, "NewOrder": NEW_ORDER, "Line": LINE})},
    }


def swagger() -> dict[str, Any]:
    """Return an OpenAPI 2.0 document."""
    return {
        "swagger": "2.0",
        "info": {"title": "Shop"},
        "paths": {
            "/orders/{id}": {
                "parameters": [{"name": "id", "in": "path", "type": "integer", "format": "int64", "required": True}],
                "put": {"parameters": [{"name": "b", "in": "body", "schema": {"$ref": "#/definitions/Order"}}]},
                "post": {"parameters": [{"name": "scan", "in": "formData", "type": "file", "required": True}]},
            }
        },
        "definitions": {
            "Order": {
                "type": "object",
                "properties": {"id": {"type": "integer"}, "of": {"$ref": "#/definitions/Order", "x-nullable": True}},
                "example": {"id": 7},
            }
        },
    }


def postman() -> dict[str, Any]:
    """Return a Postman collection of format 2.1."""
    return {
        "info": {"name": "Shop", "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"},
        "variable": [{"key": "base", "value": "https://shop.example"}, {"key": "limit", "value": "20"}],
        "item": [
            {
                "name": "Orders",
                "item": [
                    {
                        "name": "Get order",
                        "request": {
                            "method": "GET",
                            "url": {
                                "raw": "{{base}}/orders/:id?expand=lines",
                                "path": ["orders", ":id"],
                                "query": [{"key": "expand", "value": "lines"}],
                                "variable": [{"key": "id", "value": "7"}],
                            },
                        },
                    }
                ],
            },
            {
                "name": "Refund",
                "request": {
                    "method": "POST",
                    "url": "{{base}}/refunds",
                    "body": {"mode": "raw", "raw": '{"amount": 12.5, "limit": {{limit}}, "why": {{why}}}'},
                },
            },
            {
                "name": "Login",
                "request": {
                    "method": "POST",
                    "url": "{{base}}/login",
                    "body": {
                        "mode": "urlencoded",
                        "urlencoded": [{"key": "user", "value": "x"}, {"key": "off", "disabled": True}],
                    },
                },
            },
            {
                "name": "Cancel",
                "request": {
                    "method": "POST",
                    "url": "{{base}}/graphql",
                    "body": {
                        "mode": "graphql",
                        "graphql": {
                            "query": "mutation Cancel($id: ID!) { cancel(id: $id) }",
                            "variables": '{"id": "7"}',
                        },
                    },
                },
            },
        ],
    }


def mcp_tools() -> dict[str, Any]:
    """Return an answer to ``tools/list``."""
    node = {"type": "object", "properties": {"left": {"$ref": "#/$defs/Node"}, "value": {"type": "integer"}}}
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {
            "tools": [
                {
                    "name": "search_orders",
                    "inputSchema": {
                        "type": "object",
                        "properties": {"query": {"type": "string"}},
                        "required": ["query"],
                    },
                    "annotations": {"readOnlyHint": True},
                },
                {
                    "name": "delete_tree",
                    "inputSchema": {
                        "$defs": {"Node": node},
                        "type": "object",
                        "properties": {"root": {"$ref": "#/$defs/Node"}},
                    },
                    "annotations": {"readOnlyHint": True, "destructiveHint": False},
                },
                {
                    "name": "send_mail",
                    "inputSchema": {"type": "object", "properties": {"to": {"type": "string", "format": "email"}}},
                },
                {"name": "anything"},
            ]
        },
    }


def as_bytes(document: Any) -> bytes:
    """Return a document's JSON."""
    return json.dumps(document).encode()
