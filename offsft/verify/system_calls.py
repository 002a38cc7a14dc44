"""The system calls that the sandbox of `offsft.verify.code` refuses, as a kernel filter (seccomp, classic BPF).

Namespaces, read-only files and limits contain everything but these: shared memory and keys, which no process limit
counts; new namespaces, whose creator may mount file systems of any size; and kernel interfaces with a history of
vulnerabilities. A program that only computes uses none of them.
"""

import errno
import platform
import struct

from offsft.errors import ConfigError

# Number of each call per machine (the kernel's asm/unistd.h), and the kernel's constant for the machine (AUDIT_ARCH_*).
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED = {
    "x86_64": {
        "shmget": 29, "shmat": 30, "semget": 64, "msgget": 68, "ptrace": 101, "pivot_root": 155, "mount": 165,
        "umount2": 166, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298,
        "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "userfaultfd": 323,
    },
    "aarch64": {
        "umount2": 39, "mount": 40, "pivot_root": 41, "unshare": 97, "ptrace": 117, "msgget": 186, "semget": 190,
        "shmget": 194, "shmat": 196, "add_key": 217, "request_key": 218, "keyctl": 219, "perf_event_open": 241,
        "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "bpf": 280, "userfaultfd": 282,
    },
}  # fmt: skip
_REFUSED_EVERYWHERE = {
    "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432, "memfd_secret": 447,
}  # fmt: skip
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_NEW_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME: a `clone` with one of these."""
_OTHER_ABI = 0x40000000
"""From this number on x86_64 repeats its calls, for 32-bit pointers."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000


def seccomp_filter(machine: str | None = None) -> bytes:
    """The filter program, `struct sock_filter[]`, as bubblewrap's `--seccomp` reads it.

    Raises:
        ConfigError: this machine's call numbers are not known here.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise ConfigError(
            f"verify.kind=code runs on {' and '.join(_ARCHITECTURES)}, not on {machine}: choose another verify.kind, or"
            " run engines on such a machine"
        )
    refused = sorted({**_REFUSED[machine], **_REFUSED_EVERYWHERE}.values())
    denied, missing = (_RETURN, _REFUSE | errno.EPERM), (_RETURN, _REFUSE | errno.ENOSYS)
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, _ARCHITECTURES[machine], yes=1),
        _instruction(*denied),
        _instruction(_LOAD, _NUMBER),
        _instruction(_AT_LEAST, _OTHER_ABI, no=1),
        _instruction(*denied),
    ]
    for number in refused:
        program += [_instruction(_EQUAL, number, no=1), _instruction(*denied)]
    # clone3's flags are in memory, which a filter cannot read: it is reported as missing, so libraries use clone.
    program += [_instruction(_EQUAL, _CLONE3, no=1), _instruction(*missing)]
    program += [
        _instruction(_EQUAL, _CLONE[machine], no=3),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_ANY_BIT, _NEW_NAMESPACES, no=1),
        _instruction(*denied),
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def _instruction(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; `yes` and `no` are the numbers of instructions that a comparison skips."""
    return struct.pack("=HBBI", code, yes, no, value)
