"""ML-DSA-44, verification alone, in plain Python.

Pure, standard library only; pure ML-DSA with a context, not HashML-DSA. Polynomials are lists of 256 integers modulo q;
between `_ntt` and `_inverse_ntt` they are in the transformed domain. What a key expands to is kept.

Source: FIPS 204, algorithms 3, 8, 27 to 30, 32, 35 to 37, 40 to 43; section 4, table 1.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

__all__ = ["mldsa44_holds"]

_Poly = list[int]

_Q = 8380417
_ROWS = 4
_COLUMNS = 4
_DROPPED = 13
_ONES = 39
_BETA = 78
_GAMMA1 = 1 << 17
_GAMMA2 = (_Q - 1) // 88
_OMEGA = 80
_CHALLENGE_BYTES = 32
_MLDSA44_KEY_BYTES = 32 + 320 * _ROWS
_Z_BYTES = 576
_SIGNATURE_BYTES = _CHALLENGE_BYTES + _Z_BYTES * _COLUMNS + _OMEGA + _ROWS
_MAX_CONTEXT = 255


def _reversed_bits(number: int) -> int:
    return int(f"{number:08b}"[::-1], 2)


_ZETAS = [pow(1753, _reversed_bits(index), _Q) for index in range(256)]
_INVERSE_OF_256 = pow(256, -1, _Q)


def _ntt(poly: _Poly) -> _Poly:
    out, index, length = list(poly), 0, 128
    while length:
        for start in range(0, 256, 2 * length):
            index += 1
            zeta = _ZETAS[index]
            for j in range(start, start + length):
                t = zeta * out[j + length] % _Q
                out[j + length] = out[j] - t
                out[j] += t
        length >>= 1
    return [value % _Q for value in out]


def _inverse_ntt(poly: _Poly) -> _Poly:
    out, index, length = list(poly), 256, 1
    while length < 256:  # noqa: PLR2004  # coefficients of a polynomial
        for start in range(0, 256, 2 * length):
            index -= 1
            zeta = _Q - _ZETAS[index]
            for j in range(start, start + length):
                t = out[j]
                out[j] = t + out[j + length]
                out[j + length] = zeta * (t - out[j + length]) % _Q
        length <<= 1
    return [value * _INVERSE_OF_256 % _Q for value in out]


def _unpack(data: bytes, bits: int) -> _Poly:
    number, mask = int.from_bytes(data, "little"), (1 << bits) - 1
    return [number >> shift & mask for shift in range(0, 8 * len(data), bits)]


def _pack(values: _Poly, bits: int) -> bytes:
    number = 0
    for value in reversed(values):
        number = number << bits | value
    return number.to_bytes(len(values) * bits // 8, "little")


def _uniform(seed: bytes) -> _Poly:
    """Return a polynomial of the matrix: the first 256 numbers below q of a stream of 23 bits each."""
    wanted = 3 * 320
    while True:
        stream = hashlib.shake_128(seed).digest(wanted)
        found = []
        for at in range(0, wanted, 3):
            value = stream[at] | stream[at + 1] << 8 | (stream[at + 2] & 0x7F) << 16
            if value < _Q:
                found.append(value)
                if len(found) == 256:  # noqa: PLR2004  # coefficients of a polynomial
                    return found
        wanted *= 2


def _challenge(seed: bytes) -> _Poly:
    """Return the polynomial of 39 coefficients 1 or -1 that a seed stands for."""
    wanted = 8 + 512
    while True:
        stream = hashlib.shake_256(seed).digest(wanted)
        signs, out, at = int.from_bytes(stream[:8], "little"), [0] * 256, 8
        for index in range(256 - _ONES, 256):
            while at < wanted and stream[at] > index:
                at += 1
            if at == wanted:
                break
            place = stream[at]
            at += 1
            out[index], out[place] = out[place], 1 - 2 * (signs & 1)
            signs >>= 1
        else:
            return out
        wanted *= 2


def _hints(data: bytes) -> list[list[int]] | None:
    """Return the places of each row's hints, or None if they are not spelt in the one way."""
    rows, begun = [], 0
    for row in range(_ROWS):
        end = data[_OMEGA + row]
        if not begun <= end <= _OMEGA:
            return None
        places = list(data[begun:end])
        if any(later <= earlier for earlier, later in zip(places, places[1:])):  # Python 3.9
            return None
        rows.append(places)
        begun = end
    return None if any(data[begun:_OMEGA]) else rows


def _high_bits(value: int) -> tuple[int, int]:
    """Return what is kept of a coefficient, and the remainder: algorithm 36."""
    low = value % (2 * _GAMMA2)
    if low > _GAMMA2:
        low -= 2 * _GAMMA2
    if value - low == _Q - 1:
        return 0, low - 1
    return (value - low) // (2 * _GAMMA2), low


def _used(hinted: bool, value: int) -> int:  # noqa: FBT001  # as algorithm 40 has it
    high, low = _high_bits(value)
    if not hinted:
        return high
    return (high + (1 if low > 0 else -1)) % 44


@lru_cache(maxsize=16)
def _expanded(public_key: bytes) -> tuple[list[list[_Poly]], list[_Poly], bytes]:
    """Return the key's matrix and its first part, both transformed, and the key's digest."""
    seed, packed = public_key[:32], public_key[32:]
    matrix = [[_uniform(seed + bytes((column, row))) for column in range(_COLUMNS)] for row in range(_ROWS)]
    parts = [_unpack(packed[320 * row : 320 * (row + 1)], 10) for row in range(_ROWS)]
    shifted = [_ntt([value << _DROPPED for value in part]) for part in parts]
    return matrix, shifted, hashlib.shake_256(public_key).digest(64)


def mldsa44_holds(public_key: bytes, message: bytes, signature: bytes, context: bytes = b"") -> bool:
    """Whether a signature of a message is the key's.

    Args:
        public_key: 1,312 bytes.
        message: What was signed.
        signature: 2,420 bytes; of any other length it is none.
        context: At most 255 bytes.
    """
    if (len(public_key), len(signature)) != (_MLDSA44_KEY_BYTES, _SIGNATURE_BYTES) or len(context) > _MAX_CONTEXT:
        return False
    claimed, rest = signature[:_CHALLENGE_BYTES], signature[_CHALLENGE_BYTES:]
    hints = _hints(rest[_Z_BYTES * _COLUMNS :])
    answers = [
        [_GAMMA1 - value for value in _unpack(rest[_Z_BYTES * column : _Z_BYTES * (column + 1)], 18)]
        for column in range(_COLUMNS)
    ]
    if hints is None or any(abs(value) >= _GAMMA1 - _BETA for answer in answers for value in answer):
        return False
    matrix, shifted, key_digest = _expanded(public_key)
    told = hashlib.shake_256(key_digest + bytes((0, len(context))) + context + message).digest(64)
    challenge = _ntt(_challenge(claimed))
    transformed = [_ntt(answer) for answer in answers]
    packed = []
    for row in range(_ROWS):
        products = zip(*matrix[row], *transformed, challenge, shifted[row])  # Python 3.9
        # Four columns of the matrix, then the four answers: see the zip above.
        near = _inverse_ntt(
            [(a0 * z0 + a1 * z1 + a2 * z2 + a3 * z3 - c * t) % _Q for a0, a1, a2, a3, z0, z1, z2, z3, c, t in products]
        )
        hinted = set(hints[row])
        packed.append(_pack([_used(place in hinted, value) for place, value in enumerate(near)], 6))
    return hashlib.shake_256(told + b"".join(packed)).digest(_CHALLENGE_BYTES) == claimed
