"""Implementations of the `ledger.ports.Witness` port, named by `service.wiring` alone."""
