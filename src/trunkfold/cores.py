"""How many cores there are for this process."""

import os


def usable_cores() -> int:
    """Cores that this process may use: a container or a scheduler may grant fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
