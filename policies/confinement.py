"""What an engine's process may not do: bounds that the kernel keeps, set by the process on itself before it reads.

Native code reads what strangers write. Whatever it can be brought to do, it does in a process that has no secret, no
descriptor but its one channel, and these bounds: address space, processor time, descriptors, length of files, no core
dump, no further process. Where the kernel has seccomp (Linux on x86-64 and AArch64), starting a process or program,
opening a socket, opening a file to write, renaming or removing one, signalling or tracing others are refused besides,
also to root, for whom the count of processes does not hold. The process is killed when its parent dies.

Sources: setrlimit(2), prctl(2), seccomp(2); the numbers of system calls are those of the kernel's tables for the two
architectures.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Final

__all__ = ["allow_seconds", "confine", "seccomp_program"]

_FILE_BYTES: Final = 64 << 10
"""Longest file: the standard error, which is read for its last words alone."""
_DESCRIPTORS: Final = 32
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 1, 38, 22, 2
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # refused with EPERM
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16
_OPEN_TO_WRITE: Final = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC


@dataclass(frozen=True, slots=True, kw_only=True)
class _Architecture:
    """Numbers of one architecture.

    Attributes:
        identity: As the kernel tells it to a filter.
        opening: System calls that open a file → which argument has the flags.
        refused: System calls that are refused.
        foreign_from: Numbers from here on belong to another calling convention; 0 if there is none.
    """

    identity: int
    opening: Mapping[int, int]
    refused: Sequence[int]
    foreign_from: int = 0


_ARCHITECTURES: Final[Mapping[str, _Architecture]] = {
    "x86_64": _Architecture(
        identity=0xC000003E,
        opening={2: 1, 257: 2},
        # clone, fork, vfork, execve, execveat, clone3; socket, socketpair, connect;
        # kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal, pidfd_open, pidfd_getfd, ptrace,
        # process_vm_readv and _writev, process_madvise; creat, openat2, truncate, rename, renameat, renameat2, unlink,
        # unlinkat, mkdir, mkdirat, rmdir, link, linkat, symlink, symlinkat; io_uring_setup, bpf, keyctl, userfaultfd.
        refused=(
            *(56, 57, 58, 59, 322, 435, 41, 53, 42),
            *(62, 200, 234, 129, 297, 424, 434, 438, 101, 310, 311, 440),
            *(85, 437, 76, 82, 264, 316, 87, 263, 83, 258, 84, 86, 265, 88, 266, 425, 321, 250, 323),
        ),
        foreign_from=0x40000000,
    ),
    "aarch64": _Architecture(
        identity=0xC00000B7,
        opening={56: 2},
        # The same, where the architecture has them.
        refused=(
            *(220, 221, 281, 435, 198, 199, 203),
            *(129, 130, 131, 138, 240, 424, 434, 438, 117, 270, 271, 440),
            *(437, 45, 38, 276, 35, 34, 37, 36, 425, 280, 219, 282),
        ),
    ),
}


def _instruction(code: int, if_true: int, if_false: int, operand: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def seccomp_program(machine: str) -> bytes | None:
    """Return the filter for an architecture, eight bytes an instruction; None where there is none.

    Args:
        machine: As `platform.machine` names it.
    """
    found = _ARCHITECTURES.get(machine)
    if found is None:
        return None
    program = [
        _instruction(_LOAD, 0, 0, _AT_ARCHITECTURE),
        _instruction(_EQUAL, 1, 0, found.identity),
        _instruction(_RETURN, 0, 0, _KILL),
        _instruction(_LOAD, 0, 0, _AT_NUMBER),
    ]
    if found.foreign_from:
        program += [_instruction(_AT_LEAST, 0, 1, found.foreign_from), _instruction(_RETURN, 0, 0, _REFUSE)]
    for number in found.refused:
        program += [_instruction(_EQUAL, 0, 1, number), _instruction(_RETURN, 0, 0, _REFUSE)]
    for number, argument in found.opening.items():
        program += [
            _instruction(_EQUAL, 0, 4, number),
            _instruction(_LOAD, 0, 0, _AT_ARGUMENTS + 8 * argument),
            _instruction(_ANY_BIT, 0, 1, _OPEN_TO_WRITE),
            _instruction(_RETURN, 0, 0, _REFUSE),
            _instruction(_LOAD, 0, 0, _AT_NUMBER),
        ]
    return b"".join([*program, _instruction(_RETURN, 0, 0, _ALLOW)])


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (bound, bound))


class _FilterProgram(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _filter_system_calls(libc: ctypes.CDLL) -> None:
    program = seccomp_program(platform.machine())
    if program is None:
        return
    buffer = ctypes.create_string_buffer(program, len(program))
    wanted = _FilterProgram(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # A kernel without it, or a sandbox that forbids filters: the other bounds hold.
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(wanted), 0, 0)


def confine(*, memory_bytes: int, parent: int) -> None:
    """Bound the calling process for the rest of its life.

    Args:
        memory_bytes: Most address space.
        parent: Process id of the parent; where it has died already, the process ends.
    """
    with nullcontext() if sys.platform == "linux" else suppress(ValueError, OSError):  # macOS has the name of it alone
        _lower(resource.RLIMIT_AS, memory_bytes)
    _lower(resource.RLIMIT_NOFILE, _DESCRIPTORS)
    _lower(resource.RLIMIT_FSIZE, _FILE_BYTES)
    _lower(resource.RLIMIT_CORE, 0)
    if hasattr(resource, "RLIMIT_NPROC"):
        _lower(resource.RLIMIT_NPROC, 0)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        _filter_system_calls(libc)
    if os.getppid() != parent:
        raise SystemExit(1)


def allow_seconds(seconds: float) -> None:
    """Let the process use so much more processor time, and not be killed for what it used before."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    bound = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))
