"""The marker ``rtpool`` of the pytest plugin, in tests of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

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


# Without what pytest finds installed, which takes as long as the rest of its start. `run` has it found without options.
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "rtpool_pytest"}
IN_PARALLEL = ALONE | {"PYTEST_PLUGINS": "rtpool_pytest,xdist.plugin"}


def run(path: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(path)],
        cwd=path.parent, env=os.environ | (IN_PARALLEL if options else {}),
        capture_output=True, text=True, timeout=300, check=False,
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


def test_the_plugin_imports_nothing_of_rtpool_at_all(tmp_path: Path) -> None:
    """Also when it sums up: tests without the marker, seen from the end of the session."""
    (tmp_path / "conftest.py").write_text(
        "import sys\n\ndef pytest_unconfigure():\n"
        "    print('loaded:', sorted({'numpy', 'rtpool'} & set(sys.modules)))\n"
    )
    path = tmp_path / "test_none.py"
    path.write_text("def test(): pass\n")
    assert "loaded: []" in run(path)


# With pytester: the baseline, and JSON.

GROWING = """
    import os
    import numpy as np
    import pytest

    SIZE = int(os.environ.get("SIZE", "1000"))

    @pytest.mark.rtpool
    def test_plain():
        a = np.empty(SIZE)
        b = a.copy()

    @pytest.mark.rtpool(peak="1 GiB")
    def test_with_a_limit_of_its_own():
        a = np.empty(SIZE)

    @pytest.mark.rtpool
    @pytest.mark.parametrize("size", [10, 20])
    def test_with_cases(size):
        np.empty(size * SIZE)

    class TestMethods:
        @pytest.mark.rtpool(misses=0)
        def test_method(self):
            np.empty(SIZE)
"""


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    return pytester


@pytest.fixture
def growing(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    pytester.makepyfile(test_growing=textwrap.dedent(GROWING))
    monkeypatch.setenv("SIZE", "1000")
    return pytester


def both(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_baseline(growing: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    if options:
        pytest.importorskip("xdist")
        monkeypatch.setenv("PYTEST_PLUGINS", IN_PARALLEL["PYTEST_PLUGINS"])
    first = both(growing, *options)
    first.assert_outcomes(passed=5)
    first.stdout.fnmatch_lines(["rtpool: 3 tests have neither limits nor a baseline; --rtpool-update writes *"])
    path = growing.path / "rtpool-baseline.json"
    assert not path.exists()
    both(growing, "--rtpool-update", *options).stdout.fnmatch_lines(["rtpool: *: 5 of 5 tests are as in this run"])
    tests = json.loads(path.read_text())["tests"]
    assert tests["test_growing.py::test_plain"] == {"misses": 0, "temporaries": 16000, "peak": 16000, "leaks": 0}
    assert set(tests) >= {"test_growing.py::test_with_cases[10]", "test_growing.py::TestMethods::test_method"}
    both(growing, *options).assert_outcomes(passed=5)
    monkeypatch.setenv("SIZE", "3000")
    more = both(growing, *options)
    more.assert_outcomes(failed=5)  # a limit of its own goes before the baseline, for what it names
    more.stdout.fnmatch_lines(
        [
            "rtpool: temporaries 46.* in the baseline 15.6*; peak 46.* in the baseline 15.6*",
            "*test_growing.py:* in test_plain: *",
        ]
    )


@pytest.mark.slow
def test_a_baseline_elsewhere_and_its_update(growing: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    growing.makeini("[pytest]\nrtpool_baseline = limits/memory.json\n")
    growing.mkdir("limits")
    both(growing, "--rtpool-update")
    path = growing.path / "limits" / "memory.json"
    before = json.loads(path.read_text())["tests"]
    monkeypatch.setenv("SIZE", "3000")
    both(growing, "--rtpool-update", "-k", "plain").assert_outcomes(passed=1, deselected=4)
    after = json.loads(path.read_text())["tests"]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"test_growing.py::test_plain"} and after.keys() == before.keys()
    path.write_text("{}")
    both(growing).stdout.fnmatch_lines(["*is no baseline of rtpool, version 1*"])


def test_json(growing: pytest.Pytester) -> None:
    growing.makepyfile(
        test_over="import numpy as np, pytest\n@pytest.mark.rtpool(peak=10)\ndef test_over():\n    np.empty(1000)\n"
    )
    both(growing, "--rtpool-json", "memory.json").assert_outcomes(passed=5, failed=1)
    tests = json.loads((growing.path / "memory.json").read_text())["tests"]
    assert len(tests) == 6
    over = tests["test_over.py::test_over"]
    assert over["measured"]["peak"] == 8000 and over["limits"] == {"peak": 10}
    assert over["failed"].startswith("rtpool: peak 7.8") and "test_over.py:4 in test_over" in over["failed"]
    assert len(over["failed"].splitlines()) <= 5
    assert tests["test_growing.py::test_plain"]["failed"] == ""


def test_tests_that_it_cannot_call_are_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import unittest
        import pytest

        class TestCase(unittest.TestCase):
            @pytest.mark.rtpool(misses=0)
            def test_method(self):
                pass

        @pytest.mark.rtpool(misses=0)
        async def test_coroutine():
            pass
        """
    )
    result = both(pytester)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*a test of unittest.TestCase*"])
    result.stdout.fnmatch_lines(["*let a plain test call asyncio.run*"])


def test_at_most_five_lines_of_a_failure(pytester: pytest.Pytester) -> None:
    lines = "\n".join(f"            a{i} = np.ones({1000 + i})" for i in range(12))
    pytester.makepyfile(
        f"""
        import numpy as np
        import pytest

        @pytest.mark.rtpool(peak="1 KiB")
        def test_many():
{lines}
        """
    )
    result = both(pytester)
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    told = text[text.index("rtpool: peak") : text.index("short test summary")].splitlines()
    assert sum("in test_many" in line for line in told) == 4
