"""The table of the record format that the second verifier carries: paths, their kinds, and what absence means.

Pure. `evidence.standalone` knows no record type; a field that is left out of an entry has a default, and a control test
may ask of a pseudonym less than of a name. Both are written down here from the declarations of `ledger.bodies`, as
text that stands in `evidence.standalone.record_table`; a test holds the two equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from evidence.predicates import PathKind
from evidence.subjects import RECORD_SUBJECTS, SUBJECTS
from ledger.records import Record

__all__ = ["table_text"]

_VALUE_SUBJECTS: Final = tuple(name for name in SUBJECTS if name not in RECORD_SUBJECTS)


def _defaults(kind: msgspec.inspect.Type, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the paths of fields that are left out where they hold a default other than null, with that default."""
    if isinstance(kind, msgspec.inspect.Metadata):
        yield from _defaults(kind.type, path)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for option in kind.types:
            yield from _defaults(option, path)
    elif isinstance(kind, msgspec.inspect.StructType):
        prefix = path if kind.tag is None else str(kind.tag)
        for field in kind.fields:
            place = f"{prefix}.{field.encode_name}"
            if field.default is not msgspec.NODEFAULT and field.default is not None:
                yield place, msgspec.to_builtins(field.default)
            yield from _defaults(field.type, place)


def table_text() -> str:
    """Return one line for each subject's path: subject, path, kind, and the default where there is one."""
    defaults = dict(_defaults(msgspec.inspect.type_info(Record), "envelope"))
    lines = []
    for subject in (*RECORD_SUBJECTS, *_VALUE_SUBJECTS):
        for path, kind in sorted(SUBJECTS[subject].items()):
            told = "" if kind is PathKind.GROUP or path not in defaults else f" {json.dumps(defaults[path])}"
            lines.append(f"{subject} {path} {kind.value}{told}")
    return "".join(line + "\n" for line in lines)
