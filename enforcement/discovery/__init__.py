"""Shadow servers: MCP servers that nobody registered, found on the network and in the configurations of clients.

`scope` says what may be asked, `handshake` what is asked and what an answer shows, `probing` asks one port, `scan` all
of them at a bounded pace, `places` finds the configuration files of clients, and `comparison` holds what was found
against what is registered. Nothing is scanned that was not given, and no server is called: only handshakes are made.
"""
