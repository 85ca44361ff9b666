"""The FastAPI service: settings, wiring, API, dashboard, command line."""
