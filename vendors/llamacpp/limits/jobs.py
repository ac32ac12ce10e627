"""Windows' job objects, by ctypes: a limit on what a child may commit, and its end with ours.

Never run on Windows; only the sizes of the structures are tested. A job counts memory that is
committed, not files that are mapped, so mapped weights are outside its limit.
"""

from __future__ import annotations

import ctypes
import sys

LIMIT_PROCESS_MEMORY = 0x0100
"""JOB_OBJECT_LIMIT_PROCESS_MEMORY in winnt.h."""
LIMIT_KILL_ON_JOB_CLOSE = 0x2000
"""JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE in winnt.h."""

_EXTENDED = 9
"""JobObjectExtendedLimitInformation in JOBOBJECTINFOCLASS, winnt.h."""
_SET_QUOTA_AND_TERMINATE = 0x0100 | 0x0001
"""PROCESS_SET_QUOTA and PROCESS_TERMINATE: what AssignProcessToJobObject asks for."""

_Word, _Size = ctypes.c_uint32, ctypes.c_size_t


class BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION, winnt.h."""

    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", _Word),
        ("MinimumWorkingSetSize", _Size),
        ("MaximumWorkingSetSize", _Size),
        ("ActiveProcessLimit", _Word),
        ("Affinity", _Size),
        ("PriorityClass", _Word),
        ("SchedulingClass", _Word),
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION, winnt.h; IoInfo is six counters."""

    _fields_ = (
        ("BasicLimitInformation", BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", _Size),
        ("JobMemoryLimit", _Size),
        ("PeakProcessMemoryUsed", _Size),
        ("PeakJobMemoryUsed", _Size),
    )


def limits(committed_bytes: int | None) -> ExtendedLimits:
    """Describe a job whose processes end with it, and may commit at most so much each."""
    extended = ExtendedLimits()
    extended.BasicLimitInformation.LimitFlags = LIMIT_KILL_ON_JOB_CLOSE
    if committed_bytes is not None:
        extended.BasicLimitInformation.LimitFlags |= LIMIT_PROCESS_MEMORY
        extended.ProcessMemoryLimit = committed_bytes
    return extended


if sys.platform == "win32":

    class Job:
        """One job object. Closing it, or our own end, ends the processes in it."""

        def __init__(self, committed_bytes: int | None) -> None:
            """Make it, empty. Raises OSError where Windows refuses."""
            self._kernel = _kernel()
            self._handle = self._kernel.CreateJobObjectW(None, None)
            wanted = limits(committed_bytes)
            if not self._handle or not self._kernel.SetInformationJobObject(
                self._handle, _EXTENDED, ctypes.byref(wanted), ctypes.sizeof(wanted)
            ):
                error = ctypes.WinError(ctypes.get_last_error())
                self.close()
                raise error

        def add(self, pid: int) -> None:
            """Put a process into the job. Raises OSError where Windows refuses."""
            process = self._kernel.OpenProcess(_SET_QUOTA_AND_TERMINATE, False, pid)  # noqa: FBT003 - the system's
            if not process:
                raise ctypes.WinError(ctypes.get_last_error())
            try:
                if not self._kernel.AssignProcessToJobObject(self._handle, process):
                    raise ctypes.WinError(ctypes.get_last_error())
            finally:
                self._kernel.CloseHandle(process)

        def close(self) -> None:
            """Let go of the job, which ends what is left in it. Idempotent."""
            handle, self._handle = self._handle, None
            if handle:
                self._kernel.CloseHandle(handle)

    def _kernel() -> ctypes.WinDLL:
        """Declare the functions' types: handles are pointers, and ctypes would cut them."""
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        handle, number = ctypes.c_void_p, ctypes.c_int
        kernel.CreateJobObjectW.restype = handle
        kernel.CreateJobObjectW.argtypes = (handle, ctypes.c_wchar_p)
        kernel.SetInformationJobObject.argtypes = (handle, number, handle, _Word)
        kernel.OpenProcess.restype = handle
        kernel.OpenProcess.argtypes = (_Word, number, _Word)
        kernel.AssignProcessToJobObject.argtypes = (handle, handle)
        kernel.CloseHandle.argtypes = (handle,)
        return kernel
