"""The commands `doctor`, `run` and `info`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from libcs import GLIBC

from rtpool._realtime import checkup
from rtpool._realtime.probe import Machine


def rtpool_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("RTPOOL_")}
    command = [sys.executable, "-m", "rtpool", *arguments]
    return subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(
        "import sys, threading\n"
        "import numpy as np\n"
        "import beside, rtpool\n"
        "assert __name__ == '__main__' and sys.argv[0] == __file__\n"
        "owners = []\n"
        "thread = threading.Thread(target=lambda: owners.append(rtpool.owner(np.ones(5000))))\n"
        "thread.start(); thread.join()\n"
        "for _ in range(20):\n"
        "    array = np.ones(300_000) * 2\n"
        "print(owners[0].name, rtpool.owner(array).name, sys.argv[1:])\n"
        "if '--exit' in sys.argv: sys.exit(int(sys.argv[-1]))\n"
        "if '--text' in sys.argv: sys.exit('a reason')\n"
        "if '--raise' in sys.argv: raise KeyError('from the program')\n"
    )
    (tmp_path / "beside.py").write_text("")
    return path


def test_run_activates_an_unchanged_program(program: Path) -> None:
    done = rtpool_command("run", str(program), "one", "--two", "-m")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "default default ['one', '--two', '-m']\n"
    assert "hits" in done.stderr and "faults" in done.stderr
    assert ("takes no settings" in done.stderr) == (not GLIBC)
    assert rtpool_command("run", "--quiet", str(program)).stderr == ""


def test_run_ends_as_the_program_does(program: Path) -> None:
    assert rtpool_command("run", str(program), "--exit", "7").returncode == 7
    reason = rtpool_command("run", str(program), "--text")
    assert reason.returncode == 1 and "a reason" in reason.stderr
    raised = rtpool_command("run", str(program), "--raise")
    assert raised.returncode == 1 and "KeyError: 'from the program'" in raised.stderr and "hits" in raised.stderr


def test_run_takes_modules_directories_and_reports_what_is_missing(program: Path) -> None:
    folder = program.parent
    (folder / "__main__.py").write_text("print('as a directory')\n")
    assert rtpool_command("run", str(folder)).stdout == "as a directory\n"
    module = subprocess.run(
        [sys.executable, "-m", "rtpool", "run", "-m", "program", "x"], cwd=folder, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert module.returncode == 0 and module.stdout == "default default ['x']\n", module.stderr
    missing = rtpool_command("run", str(folder / "none.py"))
    assert missing.returncode == 2 and "there is no" in missing.stderr


def test_run_learns_a_plan_and_uses_it(program: Path, tmp_path: Path) -> None:
    plan = str(tmp_path / "plan.json")
    first = rtpool_command("run", "--plan", plan, str(program))
    assert "learned, written to" in first.stderr and json.loads(Path(plan).read_text())["format"] == "rtpool-plan"
    second = rtpool_command("run", "--plan", plan, "--json", "-", str(program))
    summary = json.loads(second.stderr)
    # The main thread finds everything ready; the other thread has a heap of its own.
    assert summary["plan_bytes"] >= 2 * 2_400_000 and summary["pool"]["kernel_calls"] <= 10
    Path(plan).write_text("{}")
    broken = rtpool_command("run", "--plan", plan, str(program))
    assert broken.returncode == 2 and "is no plan" in broken.stderr and broken.stdout == ""


def test_run_writes_its_summary_and_locks(program: Path, tmp_path: Path) -> None:
    done = rtpool_command("run", "--lock", "--json", str(tmp_path / "summary.json"), str(program))
    assert done.returncode == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["locked"] or "limits.conf" in summary["lock_refused"]
    assert ("the whole process" in done.stderr) == summary["locked"]


def test_info() -> None:
    # Not every kernel makes huge pages of this size; without them everything is as asked for.
    done = rtpool_command("info", RTPOOL_SIZE="1MiB", RTPOOL_HUGE_PAGES="off")
    assert done.returncode == 0 and "RTPOOL_SIZE=1MiB" in done.stdout and "1 MiB" in done.stdout
    told = json.loads(rtpool_command("info", "--json", RTPOOL_HUGE_PAGES="off").stdout)
    assert told["rtpool"] and told["default_pool"]["degradations"] == []
    wrong = rtpool_command("info", RTPOOL_SIZE="much")
    assert wrong.returncode == 1 and "RTPOOL_SIZE" in wrong.stdout
    assert "error" in json.loads(rtpool_command("info", "--json", RTPOOL_SIZE="much").stdout)


def test_doctor_as_a_user_sees_it() -> None:
    done = rtpool_command("doctor", "--seconds", "0.1")
    assert done.returncode in (0, 1) and "kernel preemption" in done.stdout and "wake-ups" in done.stdout
    found = json.loads(rtpool_command("doctor", "--json", "--seconds", "0").stdout)
    assert {finding["verdict"] for finding in found["findings"]} <= {"ok", "warn", "fail"}
    assert all(bool(finding["fix"]) == (finding["verdict"] != "ok") for finding in found["findings"])
    assert rtpool_command("doctor", "--seconds", "-1").returncode == 2


def test_doctor_tells_whether_blas_threads_are_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**environment: str) -> dict[str, str]:
        told = json.loads(rtpool_command("doctor", "--json", "--seconds", "0.01", **environment).stdout)
        (one,) = [finding for finding in told["findings"] if finding["what"] == "BLAS threads"]
        return one

    assert found(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")["verdict"] == "ok"
    before_and_after = iter([1.0, 1.0804])
    monkeypatch.setattr(checkup, "_time_of_others", lambda: next(before_and_after))
    finding = checkup._blas_threads()
    assert finding.verdict == "warn" and "80 ms" in finding.found and "OPENBLAS_THREAD_TIMEOUT=4" in finding.fix


def write(root: Path, files: dict[str, str]) -> Machine:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(str(root))


def test_doctor_finds_what_is_unfit(tmp_path: Path) -> None:
    machine = write(
        tmp_path,
        {
            "sys/kernel/debug/sched/preempt": "none (voluntary) full",
            "proc/sys/kernel/sched_rt_runtime_us": "950000",
            "proc/sys/kernel/sched_rt_period_us": "1000000",
            "proc/meminfo": "SwapTotal:       2097152 kB\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
            "sys/devices/system/cpu/cpu0/cpuidle/state3/latency": "400",
            "sys/kernel/mm/transparent_hugepage/defrag": "[always] madvise",
            "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never",
            "sys/kernel/mm/transparent_hugepage/khugepaged/defrag": "1",
            "sys/kernel/mm/ksm/run": "1",
            "sys/module/damon_reclaim/parameters/enabled": "Y",
            "sys/kernel/mm/damon/admin/kdamonds/0/state": "off",
            "sys/kernel/mm/damon/admin/kdamonds/0/contexts/0/schemes/0/action": "pageout",
            "sys/kernel/mm/damon/admin/kdamonds/1/state": "on",
            "sys/kernel/mm/damon/admin/kdamonds/1/contexts/0/schemes/0/action": "stat",
            "sys/kernel/mm/damon/admin/kdamonds/1/contexts/0/schemes/1/action": "pageout",
            "proc/sys/kernel/numa_balancing": "1",
            "sys/devices/system/node/node0/x": "",
            "sys/devices/system/node/node1/x": "",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet",
            "proc/cpuinfo": "flags : hypervisor\n",
        },
    )
    findings = {finding.what: finding for finding in checkup.examine(machine, seconds=0)}
    for what in ("kernel preemption", "real-time throttling", "swap", "frequency governor", "huge page defrag",
                 "page merging (KSM)", "NUMA balancing", "clock", "virtual machine", "proactive reclaim",
                 "huge page gathering"):  # fmt: skip
        assert findings[what].verdict != "ok" and findings[what].fix, what
    assert "50 ms" in findings["real-time throttling"].found and findings["swap"].found == "2 GiB"
    assert "400 us" in findings["idle states"].found
    fix = findings["proactive reclaim"].fix
    assert "enabled" in fix and "kdamonds/1/state" in fix and "kdamonds/0" not in fix


def test_doctor_is_content_with_a_fit_machine(tmp_path: Path) -> None:
    machine = write(
        tmp_path,
        {
            "sys/kernel/realtime": "1",
            "proc/sys/kernel/sched_rt_runtime_us": "-1",
            "proc/sys/kernel/sched_rt_period_us": "1000000",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
            "sys/devices/system/cpu/isolated": "2-3",
            "sys/kernel/mm/damon/admin/kdamonds/0/state": "on",
            "sys/kernel/mm/damon/admin/kdamonds/0/contexts/0/schemes/0/action": "stat",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
            "sys/kernel/mm/transparent_hugepage/defrag": "always [madvise]",
            "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never",
            "sys/kernel/mm/transparent_hugepage/khugepaged/defrag": "0",
            "proc/cpuinfo": "flags : fpu\n",
        },
    )
    findings = {finding.what: finding for finding in checkup.examine(machine, seconds=0)}
    of_the_files = set(findings) - {"real-time priority", "locked memory", "huge pages", "load", "per-iteration counts"}
    assert [what for what in of_the_files if findings[what].verdict != "ok"] == []
