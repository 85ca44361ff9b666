"""Where indexes are given and tiles are kept. Named by `service.wiring` alone."""
