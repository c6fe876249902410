"""How to spread threads over processes."""

from __future__ import annotations

import math

from dask.system import CPU_COUNT


def nprocesses_nthreads(n: int = CPU_COUNT) -> tuple[int, int]:
    """Divide ``n`` threads: (processes, threads of each). No process has more threads than there are processes."""
    processes = n if n <= 4 else min(divisor for divisor in range(1, n + 1) if n % divisor == 0 and divisor >= math.sqrt(n))
    return processes, n // processes
