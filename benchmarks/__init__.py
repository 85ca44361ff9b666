"""What the parts of Tallystick cost, as ratios to a plain floor of the same run: ``make bench``.

`run` is the entry; each subject has a module: `ingest`, `tree`, `checks`, `decisions`, `gateway`. The others are what
they share. ``results.md`` is what the last run wrote, ``docs/performance.md`` says what it means.

Nothing here is a test: machines differ and are noisy. But a subject that does not do what it claims to measure (a
refused batch, a denied call that arrived, a decision that is not the expected one) is an error, not a figure.
"""
