"""Ed25519, verification alone, in plain Python.

Pure, standard library only. It says what libsodium says: beside the equation, a key or first half of a signature that
is no point of the curve, has another spelling, or is of small order is refused, and so is a second half that is not
below the group's order. The equation is checked without a cofactor, on the encoded point.

Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z. Multiples of a key are kept, for one key signs many records.

Source: RFC 8032 section 5.1; Hisil et al., "Twisted Edwards Curves Revisited" (2008), sections 3.1 and 3.3.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

__all__ = ["ed25519_holds"]

_Point = tuple[int, int, int, int]
_Table = list[list[_Point]]

_P = 2**255 - 19
_GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_D2 = 2 * _D % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
_NEUTRAL: _Point = (0, 1, 1, 0)
_WINDOWS = 64
"""Of four bits each: every scalar here is below 2**256."""


def _add(one: _Point, other: _Point) -> _Point:
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = other
    a = (y1 - x1) * (y2 - x2) % _P
    b = (y1 + x1) * (y2 + x2) % _P
    c = t1 * _D2 * t2 % _P
    d = 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(point: _Point) -> _Point:
    x1, y1, z1, _ = point
    a = x1 * x1 % _P
    b = y1 * y1 % _P
    c = 2 * z1 * z1 % _P
    h = a + b
    e = h - (x1 + y1) * (x1 + y1) % _P
    g = a - b
    f = c + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _decode(data: bytes) -> _Point | None:
    """Return the point that 32 bytes spell, or None if they spell none, or not in the one way."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if (v * x * x - u) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
        if (v * x * x - u) % _P:
            return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _encode(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, _P)
    return (y * inverse % _P | (x * inverse % _P & 1) << 255).to_bytes(32, "little")


def _is_small(point: _Point) -> bool:
    """Whether eight times the point is the neutral one."""
    x, y, z, _ = _double(_double(_double(point)))
    return x == 0 and y == z


def _table(point: _Point) -> _Table:
    """Return, for each window of four bits, the sixteen multiples of the point that it can stand for."""
    rows: _Table = []
    for _ in range(_WINDOWS):
        row = [_NEUTRAL]
        for _ in range(15):
            row.append(_add(row[-1], point))
        rows.append(row)
        point = _add(row[-1], point)
    return rows


def _times(table: _Table, scalar: int) -> _Point:
    total = _NEUTRAL
    for row in table:
        if scalar & 15:
            total = _add(total, row[scalar & 15])
        scalar >>= 4
    return total


@lru_cache(maxsize=1)
def _base() -> _Table:
    point = _decode((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    assert point is not None  # RFC 8032's base point
    return _table(point)


_KEYS: dict[bytes, _Table | None] = {}
_MAX_KEYS = 64


def _key_table(public_key: bytes) -> _Table | None:
    """Return the multiples of a key's negative, or None if it is no key."""
    if public_key not in _KEYS:
        if len(_KEYS) >= _MAX_KEYS:
            _KEYS.clear()
        point = _decode(public_key)
        if point is None or _is_small(point):
            _KEYS[public_key] = None
        else:
            x, y, z, t = point
            _KEYS[public_key] = _table((_P - x, y, z, _P - t))
    return _KEYS[public_key]


def ed25519_holds(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature of a message is the key's.

    Args:
        public_key: 32 bytes.
        message: What was signed.
        signature: 64 bytes; of any other length it is none.
    """
    if len(public_key) != 32 or len(signature) != 64:  # noqa: PLR2004  # RFC 8032
        return False
    first, scalar = signature[:32], int.from_bytes(signature[32:], "little")
    table, point = _key_table(public_key), _decode(first)
    if table is None or point is None or _is_small(point) or scalar >= _GROUP_ORDER:
        return False
    challenge = int.from_bytes(hashlib.sha512(first + public_key + message).digest(), "little") % _GROUP_ORDER
    return _encode(_add(_times(_base(), scalar), _times(table, challenge))) == first
