"""The discovery laboratory: real MCP servers and things that are none, and how well a scan tells them apart."""
