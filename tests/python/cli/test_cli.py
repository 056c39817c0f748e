"""The command line: every command says what it does, and the demo measures what it promises."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from commands import Command

from rtpool import cli


def run(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rtpool", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("name", cli.command_names())
def test_every_command_has_help(name: str, command: Command) -> None:
    done = command(name, "--help")
    assert done.code == 0, done.err
    assert name in done.out
    assert len(done.out.split()) > 20


def test_the_list_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.command_names())


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["demo", "--seconds", "0"], ["demo", "--nonsense"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], command: Command) -> None:
    done = command(*arguments)
    assert done.code == 2
    assert done.err


def test_an_exit_code_is_the_process_s() -> None:
    done = run("nonsense")
    assert done.returncode == 2 and "nonsense" in done.stderr


@pytest.mark.slow
def test_the_demo_compares_three_ways_that_compute_the_same() -> None:
    done = run("demo", "--json", "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["equal"] is True
    assert {"numpy", "python", "processor"} <= report["machine"].keys()
    works = [case["name"] for case in report["cases"]]
    assert works == [f"{kind}:{10**e}" for kind in ("one_line", "two_lines") for e in (4, 5, 6, 7)] + [
        "frames:1080x1920"
    ]
    for case in report["cases"]:
        names = [way["name"] for way in case["ways"]]
        assert len(names) == 3 and names[2].endswith("out=")
        assert all(way["slowest"] >= way["median"] >= way["minimum"] > 0 for way in case["ways"])
    assert done.stderr == ""  # no progress line into a pipe


def test_the_demo_prints_a_table() -> None:
    done = run("demo", "--case", "one_line:10000", "--seconds", "0.2")
    assert done.returncode == 0, done.stderr
    assert "faults/iter" in done.stdout
    assert "rtpool.handler()" in done.stdout


@pytest.mark.slow
def test_the_bench_measures_the_cases_it_is_asked_for(command: Command) -> None:
    done = run("bench", "empty:8", "--json", "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [case["name"] for case in report["cases"]] == ["empty:8"]
    done = run("bench", "chain", "--json", "--seconds", "0.1")
    names = [case["name"] for case in json.loads(done.stdout)["cases"]]
    assert names == [f"chain:{2**e}" for e in range(11, 17)]
    assert command("bench", "nothing-of-the-kind").code == 2
