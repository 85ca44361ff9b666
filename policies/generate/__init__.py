"""Bundles made from what servers say of themselves: OpenAPI, Postman collections, MCP tool lists."""
