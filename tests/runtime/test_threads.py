from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from convc.errors import InputError
from convc.runtime import Module, host, load

USABLE = host.usable_threads()
needs_two_cores = pytest.mark.skipif(USABLE < 2, reason="needs two usable cores")


def python(program: str, path: Path, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_default_is_all_usable_cores(double_file: Path) -> None:
    assert load(double_file).threads == USABLE


@pytest.mark.parametrize("threads", [0, -1, 100_000, True, 1.5])
def test_impossible_counts(double_file: Path, threads: int) -> None:
    with pytest.raises(InputError) as caught:
        load(double_file, threads=threads)
    assert (
        str(caught.value)
        == f"threads must be from 1 to the usable cores, {host.describe_threads()}; got {threads!r}."
    )


def run_in_thread(module: Module) -> float:
    results: list[float] = []

    def work() -> None:
        results.append(float(module(np.ones(64, np.float32))[0]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return results[0]


# Prints the two busiest threads' seconds of work per second, and how many cores each may run on. A thread that is ready but
# waits for a core counts as working: other programs on the machine do not decide the test. Idle workers do not spin here.
MEASURE = """
import os, sys, time
import numpy as np
from convc.runtime import load

module = load(sys.argv[1], threads=int(os.environ["THREADS"]))
x = np.ones(64, np.float32)
module(x)

def times():
    found = {}
    for task in os.listdir("/proc/self/task"):
        running, waiting, _ = open(f"/proc/self/task/{task}/schedstat").read().split()
        found[task] = (int(running) + int(waiting)) / 1e9
    return found

before, start = times(), time.perf_counter()
while time.perf_counter() - start < 0.6:
    module(x)
wall = time.perf_counter() - start
used = sorted((((now - before[task]) / wall, task) for task, now in times().items()), reverse=True)
for work, task in used[:2]:
    print(work, len(os.sched_getaffinity(int(task))))
"""


def measure(path: Path, threads: int) -> list[tuple[float, int]]:
    text = python(
        MEASURE,
        path,
        THREADS=str(threads),
        TVM_THREAD_POOL_SPIN_COUNT="0",
        OPENBLAS_NUM_THREADS="1",
    )
    rows = [line.split() for line in text.splitlines()]
    return [(float(work), int(cores)) for work, cores in rows]


@needs_two_cores
def test_two_threads_run_on_two_cores(burn_file: Path) -> None:
    tries = [measure(burn_file, 2) for _ in range(3)]
    (first, first_cores), (second, second_cores) = max(tries, key=lambda rows: rows[1][0])
    assert first + second > 1.6
    assert second > 0.6
    assert first_cores == second_cores == len(os.sched_getaffinity(0))


def test_one_thread_runs_on_one_core(burn_file: Path) -> None:
    rows = measure(burn_file, 1)
    assert len(rows) == 1
    assert 0.8 < rows[0][0] < 1.2


@needs_two_cores
def test_counts_can_change_from_module_to_module(burn_file: Path) -> None:
    program = """
import sys
import numpy as np
import tvm_ffi
from convc.runtime import load

x = np.ones(64, np.float32)
count = tvm_ffi.get_global_func
one, two = load(sys.argv[1], threads=1), load(sys.argv[1], threads=2)
one(x)
for module in (two, one, two):
    module(x)
print(tvm_ffi.get_global_func("runtime.NumThreads")())
"""
    assert python(program, burn_file) == "2"


def test_one_thread_makes_no_pool(burn_file: Path) -> None:
    program = """
import os, sys
import numpy as np
from convc.runtime import load

load(sys.argv[1], threads=1)(np.ones(64, np.float32))
print(len(os.listdir("/proc/self/task")))
"""
    assert python(program, burn_file, OPENBLAS_NUM_THREADS="1") == "1"


def test_environment_is_left_alone_except_for_pinning(burn_file: Path) -> None:
    program = """
import os, sys
from convc.runtime import load

load(sys.argv[1])
print({name: os.environ[name] for name in os.environ if name.startswith("TVM_")})
"""
    for chosen, expected in (({}, "0"), ({"TVM_BIND_THREADS": "1"}, "1")):
        assert python(program, burn_file, **chosen) == str({"TVM_BIND_THREADS": expected})


@needs_two_cores
def test_smaller_pool_made_by_others_is_an_error(burn_file: Path) -> None:
    program = """
import os, sys, threading
os.environ["TVM_NUM_THREADS"] = "1"
import numpy as np
import tvm_ffi
from convc.errors import InputError
from convc.runtime import load

module = load(sys.argv[1], threads=2)
x = np.ones(64, np.float32)
tvm_ffi.get_global_func("runtime.NumThreads")()  # makes this thread's pool
for _ in range(2):
    try:
        module(x)
    except InputError as error:
        print(error)
thread = threading.Thread(target=lambda: print(module(x).shape))
thread.start()
thread.join()
"""
    message = (
        "threads must be at most 1, the size of the pool that TVM already made in this thread; got 2."
        " Run the module in a new thread, or set TVM_NUM_THREADS before TVM's first kernel."
    )
    assert python(program, burn_file).splitlines() == [message, message, "(64,)"]


@needs_two_cores
def test_forked_child(burn_file: Path) -> None:
    """The child's copy of the pool has no workers: an error instead of waiting for ever."""
    program = """
import os, sys, threading
import numpy as np
from convc.errors import InputError
from convc.runtime import load

x = np.ones(64, np.float32)
two, one = load(sys.argv[1], threads=2), load(sys.argv[1], threads=1)
two(x)
if os.fork() == 0:
    try:
        two(x)
    except InputError as error:
        print(error)
    print(one(x).shape)
    thread = threading.Thread(target=lambda: print(two(x).shape))
    thread.start()
    thread.join()
    sys.stdout.flush()
    os._exit(0)
print(os.wait()[1])
"""
    assert python(program, burn_file).splitlines() == [
        "threads must be 1 in a process forked from one that ran a module; got 2. Start workers with multiprocessing's 'spawn', or run the module in a new thread.",
        "(64,)",
        "(64,)",
        "0",
    ]


def test_each_calling_thread_gets_its_pool(burn_file: Path) -> None:
    module = load(burn_file)
    expected = float(np.sum(np.arange(400_000) % 3))
    assert [run_in_thread(module) for _ in range(3)] == [expected] * 3
