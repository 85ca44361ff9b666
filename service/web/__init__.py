"""The dashboard: server-rendered pages that work without JavaScript, behind a login.

Pages show what the log says and prove nothing; whoever needs proof downloads it and checks it elsewhere. Text of the
log is hostile: every string that a template prints goes through `ledger.legible` and HTML escaping (`rendering`).
"""
