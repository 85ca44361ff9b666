"""One file for each policy engine, behind one port. Named by `service.wiring` alone."""
