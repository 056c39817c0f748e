"""What a wheel has to do where it was installed, in seconds and with NumPy alone.

python smoke.py        (not from the source tree: what is installed is what must be imported)
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import rtpool
from rtpool import _core

CHILD = "import numpy, rtpool; assert rtpool.active_pool() is not None; print(numpy.ones(100_000).sum())"


def main() -> None:
    with rtpool.handler(rtpool.Pool("1 MiB")) as pool:
        assert np.ones(1000).sum() == 1000 and rtpool.owner(np.empty(5)) == pool
    pool.check()

    rtpool.activate()
    active = rtpool.active_pool()
    assert active is not None and rtpool.owner(np.empty(100_000)) == active
    rtpool.deactivate()

    with rtpool.SharedPool.create("1 MiB") as shared, rtpool.handler(shared):
        assert shared.share(np.arange(5)).open()[4] == 4

    with rtpool.realtime("2 ms", warmup=10) as section:
        for tick in section:
            np.ones((50, 50)) @ np.ones((50, 50))
            if tick.index >= 20:
                section.stop()
    assert section.report.misses == 0 and section.report.kernel_calls == 0, section.report

    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        with rtpool.handler(), rtpool.record(trace):
            np.ones(1000) + np.ones(1000)
        assert rtpool.Trace.load(trace).by_line()[0].calls >= 3

    # What the compiler's run-time library knows of the processor is not what the core goes by.
    assert platform.machine() != "x86_64" or dict(_core.copy_kernels())["sse2"], _core.copy_kernels()

    # The start-up files came with the wheel, and do their work in children.
    outside = os.environ | {"RTPOOL_ACTIVATE": "1"}
    told = subprocess.run([sys.executable, "-c", CHILD], env=outside, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    told = subprocess.run([sys.executable, "-m", "rtpool", "info"], capture_output=True, text=True, check=False)
    assert told.returncode in (0, 1) and rtpool.__version__ in told.stdout, told.stdout + told.stderr
    print(
        f"rtpool {rtpool.__version__} works: Python {sys.version.split()[0]}, NumPy {np.__version__}, {rtpool.__file__}"
    )


if __name__ == "__main__":
    main()
