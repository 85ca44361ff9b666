"""Write the control tables of ``docs/controls.md`` again, from the catalogues in ``evidence/frameworks``."""

from __future__ import annotations

import sys
from pathlib import Path

from evidence.catalogue import control_table, framework_names, load_framework

BEGIN = "<!-- control tables: written by scripts/control_tables.py -->\n"
END = "<!-- end of control tables -->\n"
DOCUMENT = Path(__file__).parent.parent / "docs" / "controls.md"


def main() -> int:
    """Replace what stands between the markers; return an exit status."""
    before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{DOCUMENT.name} has no place for the control tables", file=sys.stderr)
        return 1
    tables = "\n".join(control_table(load_framework(name)) for name in framework_names())
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
