"""A suite for whatever stands between MCP clients and servers: a server that notes what reaches it, and cases."""
