"""What a process may use of its machine, and what it has used."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_V1 = ("quota", "period")


def cores() -> int:
    """Processors this process may use, as the scheduler and the container allow; at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *map(int, _quotas(_GROUPS, _OWN_GROUPS))]))


def memory() -> int | None:
    """Bytes this process holds in memory now; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def peak_memory() -> int | None:
    """Most bytes this process has held in memory at once; None where the system does not say."""
    # Linux's getrusage tells a process what its parent held before it began.
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    with suppress(ImportError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


def bytes_read() -> int | None:
    """Bytes this process has asked the system to read; None where the system does not say."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))
    return None


def _quotas(groups: Path, own: Path) -> list[float]:
    """Processors that each control group around this process may use, where one is limited.

    Source: Linux kernel documentation, cgroup v2, `cpu.max`; v1, `cpu.cfs_quota_us`.
    """
    found = []
    for folder in _group_folders(groups, own):
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            found.append(float(quota) / float(period))
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in _V1)
            found.append(float(quota) / float(period))
    return [quota for quota in found if 0 < quota < float("inf")]


def _group_folders(groups: Path, own: Path) -> list[Path]:
    """The process's own group and all above it, in both hierarchies."""
    folders = [groups, groups / "cpu"]
    with suppress(OSError, ValueError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            root = groups / "cpu" if "cpu" in controllers.split(",") else groups
            parts = path.strip("/").split("/")
            folders += [root.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    return list(dict.fromkeys(folders))
