"""Independent copies of checkpoints. Named by `service.wiring` alone."""
