"""The composition root: nothing else names a concrete store, anchor, signer, witness or engine.

`build_services` makes every part from settings and keys; `Services.start` and `Services.stop` run them in order. There
are no module-level engines or clients: two services in one process do not know of each other.
"""
