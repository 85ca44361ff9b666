"""Logging people in by an OpenID provider: what is demanded of it, what it says, and whether that is believed."""
