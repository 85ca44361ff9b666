"""Keys that sign checkpoints and packs. Named by `service.wiring` alone."""
