"""``verify.py``: the second verifier as one file, put together from the modules of `evidence.standalone`.

The modules import nothing but Python's own library and one another. Here they are joined in the order in which they
need one another, without their imports of one another, and the table of the record format and the digests of the
control catalogues are put in. The file is a function of the program's version: the same sources make the same bytes.
"""

from __future__ import annotations

import ast
import json
import re
from importlib.resources import files
from typing import Final

from evidence.catalogue import framework_names, load_framework
from evidence.scope import framework_bytes
from evidence.standalone_table import table_text
from ledger.canonical import sha256

__all__ = ["verify_py"]

_ORDER: Final = (
    "faults",
    "texts",
    "ed25519",
    "mldsa44",
    "trees",
    "notes",
    "containers",
    "records",
    "record_table",
    "streams",
    "linked",
    "language",
    "sentences",
    "walk",
    "derive",
    "established",
    "log_part",
    "file_part",
    "checks",
    "command",
)
_HEAD: Final = '''\
#!/usr/bin/env python3
"""Verifies an evidence pack of Tallystick, offline: python3 verify.py PACK.zip --trust TRUST_POLICY

One file, Python 3.9 or newer, nothing but Python's own library: no network, no other program, nothing of the one
that made the pack. Get it, and its SHA-256, from elsewhere than the pack: a pack that brings its own verifier proves
nothing. Its parts are those of evidence/standalone in the program's sources, joined; each says what it follows.
"""

from __future__ import annotations

'''
_TAIL: Final = """

if __name__ == "__main__":
    sys.exit(main())
"""


def _joined(module: str, source: str) -> tuple[list[str], str]:
    """Return a module's imports from Python's library, and its text without docstring, imports and ``__all__``."""
    tree = ast.parse(source)
    imports, left_out = [], set()
    for number, node in enumerate(tree.body):
        docstring = number == 0 and isinstance(node, ast.Expr)
        names = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if isinstance(node, ast.Import | ast.ImportFrom):
            own = isinstance(node, ast.ImportFrom) and node.module == "__future__"
            ours = isinstance(node, ast.ImportFrom) and str(node.module).startswith("evidence.standalone.")
            imports += [] if own or ours else [ast.unparse(node)]
        elif not docstring and not names:
            continue
        assert node.end_lineno is not None  # it was parsed from text
        left_out |= set(range(node.lineno, node.end_lineno + 1))
    lines = [line for number, line in enumerate(source.splitlines(), 1) if number not in left_out]
    text = re.sub(r"\s*# noqa:.*", "", "\n".join(lines)).strip("\n")
    told = "\n".join(f"# {line}".rstrip() for line in (ast.get_docstring(tree) or "").splitlines())
    return imports, f"# --- {module}\n#\n{told}\n\n{text}\n"


def verify_py() -> bytes:
    """Return the file's bytes."""
    imports: set[str] = set()
    parts = []
    for module in _ORDER:
        source = (files("evidence") / "standalone" / f"{module}.py").read_text("utf-8")
        needed, text = _joined(module, source)
        imports.update(needed)
        parts.append(text)
    mappings = {name: sha256(framework_bytes(load_framework(name))).hex() for name in sorted(framework_names())}
    body = "\n\n".join(parts)
    body = body.replace('TABLE = ""', f'TABLE = """\\\n{table_text()}"""', 1)
    body = body.replace('MAPPINGS = "{}"', f"MAPPINGS = {json.dumps(mappings)!r}", 1)
    plain = sorted(one for one in imports if one.startswith("import "))
    named = sorted(one for one in imports if not one.startswith("import "))
    return (_HEAD + "\n".join([*plain, *named]) + "\n\n" + body + _TAIL).encode()
