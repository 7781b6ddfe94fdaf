"""What a worker may do: compute, and talk to its parent. The door that is shut once it has all it needs.

Each layer is tried, and what this kernel does not have is left out and reported. There is no well-kept
package for these few system calls, so they are made by number, here and nowhere else.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

NAME: Final = b"mmmedia-decode"
"""What a worker is called in lists of processes."""

LAYERS: Final = ("rlimits", "capabilities", "landlock", "seccomp")
"""The layers in the order in which they are put on."""

_MIB: Final = 1 << 20
_FILES: Final = 64
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 15, 22, 38
_SIGKILL: Final = 9
_EPERM, _EACCES, _ENOSYS = 1, 13, 38
_AS_ROOM: Final = 64 << 30
"""Address space beside what is written to, which costs nothing: stacks, arenas, what is reserved."""


class _Machine:
    """Numbers of a processor architecture."""

    def __init__(self, column: int, audit: int, capset: int, seccomp: int) -> None:
        self.column, self.audit, self.capset, self.seccomp = column, audit, capset, seccomp


_MACHINES: Final = {
    "x86_64": _Machine(0, 0xC000003E, 126, 317),
    "aarch64": _Machine(1, 0xC00000B7, 91, 277),
}
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same everywhere
_X32: Final = 0x40000000

# System calls that fail with "not permitted", by their numbers on x86-64 and on 64-bit ARM.
_FORBIDDEN: Final[dict[str, tuple[int | None, int | None]]] = {
    # the network, and other processes
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "socketpair": (53, 199), "execve": (59, 221), "execveat": (322, 281),
    "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # names of files
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "creat": (85, None),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "chmod": (90, None),
    "fchmodat": (268, 53), "chown": (92, None), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88), "futimesat": (261, None),
    "fchmod": (91, 52), "fchown": (93, 55), "fchdir": (81, 50), "flock": (73, 32), "fsetxattr": (190, 7),
    "fremovexattr": (199, 16), "setxattr": (188, 5), "lsetxattr": (189, 6), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fchmodat2": (452, 452), "setxattrat": (463, 463), "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "mknod": (133, None), "mknodat": (259, 33), "truncate": (76, 45), "chdir": (80, 49), "chroot": (161, 51),
    "inotify_init": (253, None), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    # the system, and what widens the ways into it
    "mount": (165, 40), "umount2": (166, 39), "move_mount": (429, 429), "open_tree": (428, 428),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "pivot_root": (155, 41), "unshare": (272, 97), "setns": (308, 268),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "syslog": (103, 116),
    "acct": (163, 89), "quotactl": (179, 60), "personality": (135, 92), "modify_ldt": (154, None),
    "iopl": (172, None), "ioperm": (173, None), "setuid": (105, 146), "setgid": (106, 144),
    "setreuid": (113, 145), "setregid": (114, 143), "setresuid": (117, 147), "setresgid": (119, 149),
    "setgroups": (116, 159),
    # what a process of the same user could do to the turns that others get
    "setpriority": (141, 140), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
}  # fmt: skip
_CLONE, _CLONE3, _KILL, _TGKILL, _PRCTL = (56, 220), (435, 435), (62, 129), (234, 131), (157, 167)
_PRLIMIT = (302, 261)
_CLONE_THREAD: Final = 0x10000

_LANDLOCK_FILES: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""Kinds of access to files that a version of Landlock knows; later ones have one more."""


def name_process(name: bytes = NAME) -> None:
    """Set what this process is called in lists of processes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name))


def end_with_parent(parent: int) -> None:
    """Have this process killed when the one that forked it ends."""
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def keep_only(descriptor: int) -> None:
    """Close all that was inherited, but for one descriptor; what is written to the standard ones is lost."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def shut(memory_mib: int) -> list[str]:
    """Take every right from this process but to compute; it must have one thread.

    Args:
        memory_mib: what it may allocate from now on.

    Returns:
        The layers of `LAYERS` that are in force.
    """
    held = []
    steps: dict[str, Callable[[], bool]] = {
        "rlimits": lambda: limit_resources(memory_mib),
        "capabilities": _drop_capabilities,
        "landlock": _restrict_by_landlock,
        "seccomp": _restrict_by_seccomp,
    }
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for name in LAYERS:
        try:
            if steps[name]():
                held.append(name)
        except OSError:  # this kernel, or this container, does not admit it
            continue
    return held


def possible() -> list[str]:
    """Return the layers of `LAYERS` that the kernel has; a container may still deny one."""
    found = ["rlimits"]
    if sys.platform.startswith("linux") and platform.machine() in _MACHINES:
        found.append("capabilities")
        if landlock_version() > 0:
            found.append("landlock")
        if _seccomp_is_there():
            found.append("seccomp")
    return found


def limit_cpu(seconds: float) -> None:
    """Let this process use so many more seconds of CPU; the system ends it then."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def limit_resources(memory_mib: int) -> bool:
    """Limit memory, descriptors, and writing to files; no core is dumped."""
    data, total = _sizes()
    memory = memory_mib * _MIB
    for kind, most in (
        (resource.RLIMIT_DATA, data + memory),
        (resource.RLIMIT_AS, total + 2 * memory + _AS_ROOM),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    return True


def _sizes() -> tuple[int, int]:
    """Return how many bytes of data, and of address space, this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # a path of no file
        fields = file.read().split()
    page = resource.getpagesize()
    return int(fields[5]) * page, int(fields[0]) * page


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: object) -> int:
    result: int = _libc().syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return result


def _prctl(option: int, first: object, second: object = 0) -> None:
    zero = ctypes.c_ulong(0)
    first = ctypes.c_ulong(first) if isinstance(first, int) else first
    second = ctypes.c_ulong(second) if isinstance(second, int) else second
    if _libc().prctl(ctypes.c_int(option), first, second, zero, zero) < 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _drop_capabilities() -> bool:
    """Give up what root may do; elsewhere there is nothing to give up."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    header = struct.pack("<II", 0x20080522, 0)  # version 3, this thread
    _syscall(machine.capset, header, bytes(24))
    return True


def landlock_version() -> int:
    """Return which version of Landlock the kernel has, 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return _syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    except OSError:
        return 0


def landlock_rules(version: int) -> bytes:
    """Return the attributes of a ruleset that handles, and so denies, all that a version knows.

    >>> landlock_rules(1).hex()
    'ff1f000000000000'
    """
    files = (1 << _LANDLOCK_FILES.get(version, 16)) - 1
    numbers = [files]
    if version >= 4:
        numbers.append(0b11)  # TCP
    if version >= 6:
        numbers.append(0b11)  # abstract sockets, and signals, of processes outside
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def _restrict_by_landlock() -> bool:
    version = landlock_version()
    if version < 1:
        return False
    rules = landlock_rules(version)
    ruleset = _syscall(_LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), ctypes.c_uint(0))
    try:
        _syscall(_LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)
    return True


def _seccomp_is_there() -> bool:
    machine = _MACHINES[platform.machine()]
    action = struct.pack("<I", 0x00050000)
    try:
        return _syscall(machine.seccomp, ctypes.c_uint(2), ctypes.c_uint(0), action) == 0
    except OSError:
        return False


def _instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def seccomp_program(machine: str, pid: int) -> bytes:
    """Return the filter of system calls, for the process of this number, as BPF.

    >>> len(seccomp_program("x86_64", 7)) % 8
    0
    """
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    known = _MACHINES[machine]
    admit, deny = 0x7FFF0000, 0x00050000
    number, architecture, first = 0, 4, 16  # offsets in what a filter is given; the low half of an argument
    program = [
        _instruction(load, 0, 0, architecture),
        _instruction(equal, 1, 0, known.audit),
        _instruction(answer, 0, 0, deny | _EPERM),
        _instruction(load, 0, 0, number),
    ]
    if machine == "x86_64":  # where a bit of the number chooses other tables
        program += [_instruction(at_least, 0, 1, _X32), _instruction(answer, 0, 0, deny | _EPERM)]
    for numbers in _FORBIDDEN.values():
        forbidden = numbers[known.column]
        if forbidden is not None:
            program += [_instruction(equal, 0, 1, forbidden), _instruction(answer, 0, 0, deny | _EPERM)]

    def judged(numbers: tuple[int, int], *judge: bytes) -> None:
        program.append(_instruction(equal, 0, len(judge), numbers[known.column]))
        program.extend(judge)

    allowed, denied = _instruction(answer, 0, 0, admit), _instruction(answer, 0, 0, deny | _EPERM)
    argument = _instruction(load, 0, 0, first)
    # glibc then tries `clone`, whose flags can be seen here: threads, and no processes.
    judged(_CLONE3, _instruction(answer, 0, 0, deny | _ENOSYS))
    judged(_CLONE, argument, _instruction(any_bit, 0, 1, _CLONE_THREAD), allowed, denied)
    for calls in (_KILL, _TGKILL):  # itself, as `abort` does
        judged(calls, argument, _instruction(equal, 0, 1, pid), allowed, denied)
    zero, own = _instruction(equal, 1, 0, 0), _instruction(equal, 0, 1, pid)
    judged(_PRLIMIT, argument, zero, own, allowed, denied)  # limits, but those of others
    judged(_PRCTL, argument, _instruction(equal, 0, 1, _PR_SET_PDEATHSIG), denied, allowed)
    program.append(allowed)
    return b"".join(program)


def _restrict_by_seccomp() -> bool:
    machine = platform.machine()
    if machine not in _MACHINES:
        return False
    program = seccomp_program(machine, os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _prctl(_PR_SET_SECCOMP, 2, ctypes.c_char_p(header))
    return True
