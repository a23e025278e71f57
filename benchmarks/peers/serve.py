"""The half of a comparison that runs in one side's own process: jobs by name, or calls that are timed on demand."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def peak_mb() -> float:
    """Peak resident memory so far; not getrusage's, which is inherited from the process that started this one."""
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024


class Clock:
    """Wall and processor time of a job from here on, and its peak memory."""

    def __init__(self) -> None:
        self.start, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """The processor's time tells more than the wall's where other work shares the machine."""
        wall, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu
        return {"seconds": wall, "cpu_s": cpu, "whole_cpu_s": time.process_time(), "peak_mb": peak_mb()}


def gflop(forward: Callable[[], object]) -> float:
    """Operations of a forward pass as torch counts them: convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops() / 1e9


def serve(calls: Mapping[str, Callable[[], object]], **facts: object) -> None:
    """Each call once to warm up, then those that are asked for on standard input, with their seconds."""
    for call in calls.values():
        call()
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        calls[line.strip()]()
        found = {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
        print(json.dumps(found), flush=True)


def main(jobs: Mapping[str, Callable[..., Any]]) -> None:
    """Run the job that the command line names with its arguments; what it returns is printed as JSON."""
    found = jobs[sys.argv[1]](**json.loads(sys.argv[2]))
    if found is not None:
        print(json.dumps(found), flush=True)
