"""The filter of system calls, run here by a machine of its own; `test_workers` tries it on the kernel."""

from __future__ import annotations

import struct

import pytest

from policies.confinement import seccomp_program

ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x00050001, 0x80000000
IDENTITIES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Names and numbers as the kernel's tables have them.
REFUSED_CALLS = {
    "x86_64": {
        "clone": 56,
        "fork": 57,
        "execve": 59,
        "socket": 41,
        "ptrace": 101,
        "unlink": 87,
        "linkat": 265,
        "kill": 62,
        "tkill": 200,
        "tgkill": 234,
        "rt_sigqueueinfo": 129,
        "rt_tgsigqueueinfo": 297,
        "pidfd_open": 434,
        "pidfd_send_signal": 424,
        "pidfd_getfd": 438,
    },
    "aarch64": {
        "clone": 220,
        "execve": 221,
        "socket": 198,
        "ptrace": 117,
        "unlinkat": 35,
        "linkat": 37,
        "kill": 129,
        "tkill": 130,
        "tgkill": 131,
        "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240,
        "pidfd_open": 434,
        "pidfd_send_signal": 424,
        "pidfd_getfd": 438,
    },
}
ALLOWED_CALLS = {
    "x86_64": {"read": 0, "write": 1, "mmap": 9, "recvfrom": 45, "sendto": 44, "setrlimit": 160, "exit_group": 231},
    "aarch64": {"read": 63, "write": 64, "mmap": 222, "recvfrom": 207, "sendto": 206, "exit_group": 94},
}
OPENAT = {"x86_64": 257, "aarch64": 56}


def run(program: bytes, number: int, identity: int, flags: int = 0) -> int:
    """Run a filter over one system call as the kernel would, and return its verdict."""
    data = struct.pack("=IIQ6Q", number, identity, 0, 0, flags, flags, 0, 0, 0)
    instructions = list(struct.iter_unpack("=HBBI", program))
    place = value = 0
    while True:
        code, if_true, if_false, operand = instructions[place]
        place += 1
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        elif code == 0x06:
            return operand
        else:
            met = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
            place += if_true if met else if_false


@pytest.fixture(params=IDENTITIES)
def machine(request):
    return request.param


def verdict(machine: str, number: int, flags: int = 0) -> int:
    program = seccomp_program(machine)
    assert program is not None
    return run(program, number, IDENTITIES[machine], flags)


def test_processes_programs_sockets_signals_and_removals_are_refused(machine):
    assert {name: verdict(machine, number) for name, number in REFUSED_CALLS[machine].items()} == dict.fromkeys(
        REFUSED_CALLS[machine], REFUSED
    )


def test_what_an_engine_needs_is_allowed(machine):
    assert {name: verdict(machine, number) for name, number in ALLOWED_CALLS[machine].items()} == dict.fromkeys(
        ALLOWED_CALLS[machine], ALLOWED
    )


@pytest.mark.parametrize(("flags", "expected"), [(0, ALLOWED), (1, REFUSED), (2, REFUSED), (0o100, REFUSED)])
def test_files_may_be_opened_to_read_alone(machine, flags, expected):
    assert verdict(machine, OPENAT[machine], flags) == expected


def test_other_calling_conventions_are_no_way_around(machine):
    program = seccomp_program(machine)
    assert program is not None
    assert run(program, 0, 0x40000003) == KILLED
    if machine == "x86_64":
        assert verdict(machine, 0x40000000 + 57) == REFUSED


def test_machine_without_a_table_has_no_filter():
    assert seccomp_program("riscv64") is None
