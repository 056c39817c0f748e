"""The marker ``rtpool`` of the pytest plugin, in tests of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = """
    import numpy as np
    import pytest

    kept = []

    @pytest.mark.rtpool(misses=0, leaks=0, peak="4 MiB", temporaries="2 MiB")
    def test_fits(tmp_path):
        a = np.ones(50_000)
        assert (a * 2).sum() == 100_000

    @pytest.mark.rtpool(temporaries="1 KiB")
    def test_makes_temporaries():
        a = np.empty(50_000)
        b = a * 2

    @pytest.mark.rtpool(leaks=0)
    def test_leaks():
        kept.append(np.empty(300))

    @pytest.mark.rtpool(misses=0)
    def test_misses():
        kept.append(np.empty(3_000_000))

    @pytest.mark.rtpool(peak="64 KiB")
    def test_peak():
        np.empty(100_000)

    @pytest.mark.rtpool(colour=3)
    def test_wrong():
        pass

    @pytest.mark.rtpool(misses=0)
    def test_that_fails_by_itself():
        assert np.ones(3).sum() == 4

    def test_without_marker():
        assert np.ones(3).sum() == 3
"""


def run(path: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(path)],
        cwd=path.parent, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "test_own.py"
    path.write_text(textwrap.dedent(TESTS), encoding="utf-8")
    return path


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_limits(path: Path, options: tuple[str, ...]) -> None:
    if options:
        pytest.importorskip("xdist")
    told = run(path, *options)
    assert "6 failed, 2 passed" in told, told
    assert "rtpool: temporaries 781." in told
    assert "test_own.py:15 in test_makes_temporaries: b = a * 2" in told
    assert "rtpool: leaks 5, allowed 0" in told and "test_own.py:19 in test_leaks" in told
    assert "rtpool: misses 5, allowed 0" in told
    assert "rtpool: peak 781." in told
    assert "there is no 'colour'; there are misses, page_faults" in told
    assert "== 4" in told and "test_that_fails_by_itself" in told


def test_the_plugin_imports_nothing_until_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "test_none.py"
    path.write_text("import sys\ndef test(): assert 'numpy' not in sys.modules and 'rtpool' not in sys.modules\n")
    assert "1 passed" in run(path)
