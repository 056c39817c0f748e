"""RTPOOL_ACTIVATE: every Python that inherits it is activated when it first imports NumPy, whatever started it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

SITE = sysconfig.get_path("platlib")

PROGRAM = """
import concurrent.futures, multiprocessing, subprocess, sys

def state():
    import numpy as np
    import rtpool
    pool = rtpool.active_pool()
    return pool is not None and rtpool.owner(np.ones(5000)) == pool

def told(answers):
    answers.put(state())

def by(method):
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=told, args=(answers,))
    process.start()
    answer = answers.get(timeout=60)
    process.join(60)
    return answer

def by_subprocess():
    flags = subprocess._args_from_interpreter_flags()
    code = "import numpy as np, rtpool; print(rtpool.owner(np.ones(5000)) is not None)"
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True).stdout == "True\\n"

def by_executor(method):
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as executor:
        return executor.submit(state).result(60)

if __name__ == "__main__":
    for how in sys.argv[1:]:
        if how == "itself": print(state())
        elif how == "subprocess": print(by_subprocess())
        elif how.startswith("executor"): print(by_executor(how.partition(":")[2]))
        else: print(by(how))
"""
# The process itself comes last: until then it has not imported NumPy, nor have those that it forks.
WAYS = ["subprocess", "executor:spawn", "spawn", "forkserver", "fork", "itself"]


def started(
    arguments: list[str],
    *,
    flags: tuple[str, ...] = (),
    cwd: Path | None = None,
    status: int | None = 0,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RTPOOL_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, *flags, *arguments],
        cwd=cwd,
        env=inherited | variables,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert status is None or done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module", params=["", "-E", "-I"])
def answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Whether one process and those that it starts are activated, by what RTPOOL_ACTIVATE is."""
    path = tmp_path_factory.mktemp("ways") / "program.py"
    path.write_text(PROGRAM)
    flags = (request.param,) if request.param else ()
    settings: dict[str, tuple[list[str], dict[str, str]]] = {
        "1": (WAYS, {"RTPOOL_ACTIVATE": "1"}),
        "0": (["spawn", "itself"], {"RTPOOL_ACTIVATE": "0"}),
        "not set": (["spawn", "itself"], {}),
    }
    told = {}
    for name, (ways, variables) in settings.items():
        said = started([str(path), *ways], flags=flags, **variables).stdout.split()
        told[name] = dict(zip(ways, said, strict=True))
    return told


@pytest.mark.parametrize("how", WAYS)
def test_children_inherit_it(answers: dict[str, dict[str, str]], how: str) -> None:
    assert answers["1"][how] == "True"
    assert answers["0"].get(how, "False") == answers["not set"].get(how, "False") == "False"


def info(*arguments: str, flags: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Of a default pool that has all that it asks for, also where the kernel has no huge pages to give."""
    return started(["-m", "rtpool", "info", *arguments], flags=flags, RTPOOL_HUGE_PAGES="off", **variables)


def test_without_site_there_is_no_start_up_file(program: Path) -> None:
    done = started([str(program), "itself"], flags=("-S",), RTPOOL_ACTIVATE="1", PYTHONPATH=SITE)
    assert done.stdout == "False\n"
    told = info("--json", flags=("-S",), RTPOOL_ACTIVATE="1", PYTHONPATH=SITE)
    assert "-S" in json.loads(told.stdout)["start_up"]["why_not"]


def test_info_and_doctor_say_whether_it_is_in_force(tmp_path: Path) -> None:
    there = json.loads(info("--json").stdout)["start_up"]
    assert there["in_force"] is True and Path(there["file"]).exists()
    findings = started(["-m", "rtpool", "doctor", "--seconds", "0"], RTPOOL_ACTIVATE="arrays", status=None).stdout
    assert "start-up file" in findings and "RTPOOL_ACTIVATE=arrays" in findings
    # As pip install --target leaves it: a folder that is no site-packages.
    for name in ("rtpool", "_rtpool_start.py", "rtpool.pth", "rtpool.start"):
        (tmp_path / name).symlink_to(Path(SITE) / name)
    elsewhere = info(flags=("-P",), PYTHONPATH=str(tmp_path)) if sys.version_info >= (3, 11) else None
    assert elsewhere is None or "is no site-packages folder" in elsewhere.stdout


def test_what_it_is_set_to() -> None:
    code = "import numpy as np, rtpool; print(rtpool.owner(np.ones(5000)) is not None)"
    assert started(["-c", code], RTPOOL_ACTIVATE="arrays").stdout == "True\n"
    wrong = started(["-c", code], RTPOOL_ACTIVATE="yes")
    assert wrong.stdout == "False\n" and "none of 1, arrays, 0" in wrong.stderr
    # The options of the pool that cannot be had: told in a line, and the program runs.
    bad = started(["-c", code], RTPOOL_ACTIVATE="1", RTPOOL_SIZE="much")
    assert bad.stdout == "False\n" and bad.stderr.count("\n") == 1 and "RTPOOL_SIZE" in bad.stderr


def test_it_waits_for_numpy_and_leaves_nothing_behind() -> None:
    code = """
import sys
assert "numpy" not in sys.modules and "rtpool" not in sys.modules
assert type(sys.meta_path[0]).__name__ == "Finder"
import importlib.util
found = importlib.util.find_spec("numpy")  # looked for, not imported
assert found.loader is not None and type(sys.meta_path[0]).__name__ == "Finder"
import numpy as np
assert "rtpool" in sys.modules and type(sys.meta_path[0]).__name__ != "Finder"
assert type(np.__spec__).__module__ == "_frozen_importlib", type(np.__spec__)
import rtpool
assert rtpool.owner(np.ones(5000)) is not None
"""
    done = started(["-c", code], RTPOOL_ACTIVATE="1")
    assert done.stderr == ""


def test_rtpool_may_be_imported_first() -> None:
    code = "import rtpool, numpy as np; print(rtpool.owner(np.ones(5000)) == rtpool.active_pool() is not None)"
    assert started(["-c", code], RTPOOL_ACTIVATE="1").stdout == "True\n"


@pytest.mark.parametrize("name", ["numpy", "numpy.linalg"])
def test_an_import_that_fails_is_the_programs_own(tmp_path: Path, name: str) -> None:
    package = tmp_path / "numpy"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('broken')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport {name}\n"
    plain = started(["-c", code], status=1)
    assert started(["-c", code], status=1, RTPOOL_ACTIVATE="1").stderr == plain.stderr
    # And the next try, with another NumPy, is activated.
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\ntry: import {name}\nexcept ImportError: del sys.path[0]\n"
        "sys.path_importer_cache.clear()\n"
        "import numpy as np, rtpool; print(rtpool.owner(np.ones(5000)) is not None)"
    )
    assert started(["-c", code], RTPOOL_ACTIVATE="1").stdout == "True\n"


def test_threads_that_import_numpy_at_once() -> None:
    code = """
import threading
owners = []
def work():
    import numpy as np
    import rtpool
    owners.append(rtpool.owner(np.ones(5000)))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(owners) == 8
import rtpool, numpy as np
assert rtpool.owner(np.ones(5000)) is not None
"""
    started(["-c", code], RTPOOL_ACTIVATE="1")


# What it costs.


def imported(flags: tuple[str, ...], **variables: str) -> list[str]:
    """The modules a Python imports before its program, beyond those of one without rtpool's start-up file."""
    text = started(["-c", ""], flags=("-X", "importtime", *flags), **variables).stderr
    return re.findall(r"\| +(\S+)$", text, re.MULTILINE)


def test_it_costs_one_module_where_it_is_set_and_none_where_it_is_not() -> None:
    without, asked = imported(()), imported((), RTPOOL_ACTIVATE="1")
    new = set(asked) - set(without)
    assert new == ({"_rtpool_start"} if sys.version_info < (3, 15) else set()), new
    # That module imports what every Python has imported already, or what is built in.
    source = (Path(SITE) / "_rtpool_start.py").read_text()
    assert re.findall(r"^(?:import|from) (\S+)", source, re.MULTILINE) == ["os", "sys", "time"]


COUNTED = """
import os, posix, sys, sysconfig
count = 0
def opcode(frame, event, argument):
    global count
    count += event == "opcode"
    return opcode
def call(frame, event, argument):
    frame.f_trace_opcodes = True
    return opcode
with open(sysconfig.get_path("platlib") + "/rtpool.pth") as file:
    line = compile(file.read(), "rtpool.pth", "exec")
if sys.argv[1:]:
    os.environ["RTPOOL_ACTIVATE"] = sys.argv[1]
    posix.environ[b"RTPOOL_ACTIVATE"] = sys.argv[1].encode()  # as it is at a start
sys.settrace(call)
exec(line)
sys.settrace(None)
print(count)
"""


def test_what_every_python_of_the_machine_pays_is_counted() -> None:
    """Less than 50 us without the variable, and less than 1 ms with it where NumPy is not imported: as instructions of
    the interpreter, of which it does ten and more in a microsecond."""
    counts = [int(started(["-c", COUNTED, *variable]).stdout) for variable in ([], ["0"], ["1"])]
    assert counts[0] < 15 and counts[1] < 5000 and counts[2] < 5000, counts


# Summaries of children.


WORKERS = """
import multiprocessing, os, sys, time
def work(n):
    import numpy as np
    for _ in range(n): np.ones(10_000)
    return n
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    processes = [context.Process(target=work, args=(100,)) for _ in range(3)]
    for process in processes: process.start()
    for process in processes: process.join()
    pid = os.fork()
    if pid == 0:
        work(50)
        sys.exit(0)
    os.waitpid(pid, 0)
    print("done")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_are_summed_up(method: str, tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    arguments = ["-m", "rtpool", "run", "--children", "--json", "summary.json", "workers.py", method]
    done = started(arguments, cwd=tmp_path)
    assert done.stdout == "done\n" and "children    4," in done.stderr
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
    lines = [path for path in tmp_path.glob("summary.json.*") if re.fullmatch(r"summary\.json\.\d+\.\d+", path.name)]
    assert len(lines) == summary["children"]["count"] == 4
    for path in lines:
        assert path.read_text().count("\n") == 1
    told = [json.loads(path.read_text()) for path in lines]
    assert {f"summary.json.{child['pid']}.{child['start']}" for child in told} == {path.name for path in lines}
    assert sum(child["pool"]["total_count"] for child in told) == summary["children"]["pool"]["total_count"] >= 350
    assert all(child["minor_faults"] > 0 and child["seconds"] > 0 for child in told)


def test_without_a_file_summaries_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    done = started(["-m", "rtpool", "run", "--children", "workers.py", "fork"], cwd=tmp_path, TMPDIR=str(tmp_path))
    assert "children    4," in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["workers.py"]


# Commands that are no Python scripts.


def test_commands_of_this_python_run_as_scripts(tmp_path: Path) -> None:
    command = tmp_path / "a-command"
    command.write_text(
        f"#!{sys.executable}\nimport sys, numpy as np, rtpool\nprint(sys.argv, rtpool.owner(np.ones(5000)).name)\n"
    )
    command.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = started(["-m", "rtpool", "run", "a-command", "x"], PATH=path)
    assert done.stdout == f"[{str(command)!r}, 'x'] default\n" and "hits" in done.stderr


def test_other_commands_have_their_pythons_activated(tmp_path: Path) -> None:
    command = tmp_path / "server"
    code = "import numpy as np, rtpool; print(rtpool.owner(np.ones(5000)) is not None)"
    command.write_text(f"#!/bin/sh\n{sys.executable} -c '{code}'\n{sys.executable} -c '{code}'\nexit 7\n")
    command.chmod(0o755)
    done = started(["-m", "rtpool", "run", str(command)], status=7)
    assert done.stdout == "True\nTrue\n" and "children    2," in done.stderr
    missing = started(["-m", "rtpool", "run", "no-such-command"], status=2)
    assert "there is no 'no-such-command'" in missing.stderr


def test_signals_reach_the_command_and_its_end_is_ours(tmp_path: Path) -> None:
    command = tmp_path / "waits"
    command.write_text("#!/bin/sh\necho ready\nexec sleep 60\n")
    command.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "rtpool", "run", "--quiet", str(command)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == -signal.SIGTERM
    process.stdout.close()
