"""What commands write into the tree says nothing of the machine that it was made on."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
PLACES = re.compile(r"(?<![\w.])/(?:root|home|tmp|work|opt|srv|mnt)/\S+|file://\S+|~/\S+")
TRACE = f"""Traceback (most recent call last):
  File "{ROOT}/build/wheel/tools/lib/python3.11/site-packages/auditwheel/main.py", line 50, in main
  File "/home/someone/.pyenv/versions/3.11.7/lib/python3.11/runpy.py", line 88, in _run_code
ValueError: Cannot repair wheel, because required library "libc.so" could not be located"""

pytestmark = pytest.mark.skipif(not (ROOT / "tests" / "plain_text.py").exists(), reason="the sources are not here")


@pytest.fixture
def plain_text(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tests")
    return importlib.import_module("plain_text")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tests" / "wheel")
    return importlib.import_module("report")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (f"see {ROOT}/build/wheel/log.txt", "see build/wheel/log.txt"),
        ('  File "/home/someone/python3.11/runpy.py", line 88', '  File "runpy.py", line 88'),
        ("in ~/.cache/pip/wheels and /usr/include/c++/14/bits/x.h:3:4:", "in wheels and x.h:3:4:"),
        ("Location 'file:///srv/packages/pytest/' is ignored", "Location '(address)' is ignored"),
        ("of https://packages.example/simple, 3.5 MiB/s", "of (address), 3.5 MiB/s"),
        ("/dev/shm/name /proc/self/maps src/os/map.cpp:3 and/or 3/4/5", None),
    ],
)
def test_texts_without_their_machine(plain_text: ModuleType, text: str, plain: str | None) -> None:
    assert plain_text.plain(text) == (text if plain is None else plain)
    assert plain_text.all_plain({"a": [text, 3]}) == {"a": [plain_text.plain(text), 3]}


def result(report: ModuleType, found: object, **rows: object) -> dict[str, object]:
    told = {"archive": "rtpool-1.tar.gz", "wheels": [], "installed": []}
    return told | rows | {"not_done": found.not_done, "problems": found.problems}  # type: ignore[attr-defined]


def test_results_of_wheels(report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "results" / "release.json"
    first = report.Report()
    first.hold("a.whl", "auditwheel repair", False, TRACE)
    first.hold("b.whl", "is whole", False, "nothing")
    first.leave_out("install: musl", f"no Python in {ROOT}/build/musl")
    assert TRACE in capsys.readouterr().out  # all of it where it was run
    report.record(place, result(report, first, wheels=[{"wheel": "b.whl", "bytes": 1}]), first.looked_at)
    told = json.loads(place.read_text())
    assert not PLACES.search(place.read_text())
    assert [(each["of"], each["what"]) for each in told["problems"]] == [
        ("a.whl", "auditwheel repair"),
        ("b.whl", "is whole"),
    ]
    assert told["problems"][0]["seen"].endswith('required library "libc.so" could not be located')

    again = report.Report()
    again.hold("a.whl", "auditwheel repair", True)
    made = result(report, again, wheels=[{"wheel": "a.whl", "bytes": 2}], installed=[{"of": "x", "said": "works"}])
    report.record(place, made, again.looked_at)
    told = json.loads(place.read_text())
    assert [row["wheel"] for row in told["wheels"]] == ["a.whl", "b.whl"]
    assert [each["of"] for each in told["problems"]] == ["b.whl"], "what was not looked at again is as it was"
    assert [each["of"] for each in told["not_done"]] == ["install: musl"]
    assert told["installed"] == [{"of": "x", "said": "works"}]


@pytest.mark.parametrize(
    "place", sorted([*ROOT.glob("tests/*/results/*"), *ROOT.glob("bench/results/*")]), ids=lambda p: p.name
)
def test_committed_results(place: Path) -> None:
    assert not PLACES.findall(place.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("suite", "told"),
    [
        ("convert", "no case has nothing-of-the-kind in its name; there are: convert:"),
        ("core", "no case has nothing-of-the-kind in its name; there are: pairs, "),
        ("replay", "no case has nothing-of-the-kind in its name; there are: "),
        ("startup", "the suite startup has no cases to choose from"),
    ],
)
def test_a_benchmark_of_no_case_ends_with_a_word_and_writes_nothing(suite: str, told: str, tmp_path: Path) -> None:
    line = [sys.executable, ROOT / "bench" / "run.py", "--suite", suite, "--cases", "nothing-of-the-kind"]
    line += ["--build", tmp_path, "--results", tmp_path / "results"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert not (tmp_path / "results").exists()
