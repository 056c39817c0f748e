"""`python -m rtpool run` is `python` for a program that does not ask: output, exit code, traceback."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import programs
import pytest

SITE = sysconfig.get_path("platlib")
ADDRESS = re.compile(r"0x[0-9a-f]+|\(\d+\)|\d+\.\d+s")

# With the start-up file, and where there is none in force.
WAYS = {"start-up": [], "in place": ["-S"]}


def outcome(flags: list[str], arguments: list[str], folder: Path, given: str, *, run: bool) -> tuple[int, str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RTPOOL_", "PYTHON"))}
    inherited["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # halves its start
    if "-S" in flags:
        inherited["PYTHONPATH"] = SITE
    through = ["-m", "rtpool", "run", "--quiet"] if run else []
    done = subprocess.run(
        [sys.executable, *flags, *through, *arguments],
        cwd=folder,
        env=inherited,
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, ADDRESS.sub("?", done.stdout), ADDRESS.sub("?", done.stderr)


def expect_the_same(flags: list[str], arguments: list[str], folder: Path, given: str = "") -> tuple[int, str, str]:
    plain = outcome(flags, arguments, folder, given, run=False)
    assert outcome(flags, arguments, folder, given, run=True) == plain
    return plain


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", programs.SCRIPTS)
def test_scripts(name: str, way: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(programs.source(programs.SCRIPTS[name]))
    expect_the_same(WAYS[way], ["program.py", "an argument", "-m"], tmp_path)


@pytest.mark.parametrize("name", programs.SCRIPTS_BY_START_UP)
def test_what_only_the_start_up_file_hides(name: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(programs.source(programs.SCRIPTS_BY_START_UP[name]))
    expect_the_same([], ["program.py"], tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Modules, packages, a directory, a zip file that can be run."""
    print_all = (
        "import sys; print(__name__, __package__, __spec__ and __spec__.name, sys.argv, sys.path[0], __file__)\n"
    )
    (tmp_path / "module.py").write_text(print_all)
    (tmp_path / "bad.py").write_text("import module_that_is_not_there\n")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("print('package', __name__)\n")
    (package / "__main__.py").write_text("from . import beside\n" + print_all)
    (package / "beside.py").write_text("def f(): raise ValueError('deep')\nif __name__ == '__main__': f()\n")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "__main__.py").write_text("import other\n" + print_all)
    (tmp_path / "plain" / "other.py").write_text("")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(tmp_path / "plain" / "__main__.py", "__main__.py")
        archive.write(tmp_path / "plain" / "other.py", "other.py")
    (tmp_path / "test_it.py").write_text("def test_good(): pass\ndef test_bad(): assert 1 == 2\n")
    return tmp_path


COMMANDS = {
    "module": ["-m", "module", "x", "-y"],
    "module_of_package": ["-m", "package.beside"],
    "package": ["-m", "package"],
    "missing_module": ["-m", "nothing.of_the_kind"],
    "module_that_raises": ["-m", "bad"],
    "directory": ["plain", "x"],
    "archive": ["archive.zip", "x"],
    "unittest": ["-m", "unittest", "-q", "module"],
    "json_tool": ["-m", "json.tool"],
    "timeit": ["-m", "timeit", "-n", "1", "-r", "1", "-s", "raise KeyError"],
    "profile": ["-m", "cProfile", "-s", "name", "nothing.py"],
    "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
    "stdin": ["-"],
}
GIVEN = {
    "json_tool": '{"a": [1, 2]}',
    "stdin": "import sys; print(__name__, sys.argv, globals().get('__file__'))\n1/0\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, way: str, folder: Path) -> None:
    expect_the_same(WAYS[way], COMMANDS[name], folder, GIVEN.get(name, ""))


@pytest.mark.skipif(
    importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_runpy") is None,
    reason="this Python came without its tests",
)
def test_pythons_own_tests_of_running_programs_pass(tmp_path: Path) -> None:
    arguments = ["-m", "test", "test_runpy"]
    ends = [outcome([], arguments, tmp_path, "", run=run) for run in (False, True)]
    counts = [re.findall(r"Total tests: .*|Result: .*", out) for _, out, _ in ends]
    assert ends[0][0] == ends[1][0] == 0, ends[1][1] + ends[1][2]
    assert counts[0] == counts[1]


def test_code(folder: Path) -> None:
    code, out, _ = expect_the_same(
        [], ["-c", "import sys; print(sys.argv, repr(sys.path[0])); sys.exit(3)", "x"], folder
    )
    assert code == 3 and out == "['-c', 'x'] ''\n"


@pytest.mark.parametrize(
    "flags", [["-O"], ["-X", "dev"], ["-W", "error"], ["-E"], ["-I"], ["-u", "-B"], ["-bb"], ["-s"]]
)
def test_options_of_the_interpreter_stay(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        programs.source(programs.SCRIPTS["environment"] + "\n        assert not __debug__")
    )
    expect_the_same(flags, ["program.py"], tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [["it.py"], ["-m", "it"], ["-c", "import numpy"], ["--quiet", "it.py", "run"], ["--children", "it.py"]],
    ids=["script", "module", "code", "options", "children"],
)
def test_numpy_is_imported_by_the_program_alone(arguments: list[str], tmp_path: Path) -> None:
    """What reads the command line becomes the program; were NumPy there already, that would be for nothing."""
    (tmp_path / "it.py").write_text("import numpy")
    code, _, err = outcome(["-X", "importtime"], arguments, tmp_path, "", run=True)
    assert code == 0, err
    imported = re.findall(r"\| +(\S+)$", err, re.MULTILINE)
    assert imported.count("site") == 2 and imported.count("numpy") == imported.count("rtpool._core") == 1


def test_what_the_user_set_is_what_the_program_finds(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import os; print(os.environ['RTPOOL_ACTIVATE'], os.environ['RTPOOL_SIZE'])\n")
    done = subprocess.run(
        [sys.executable, "-m", "rtpool", "run", "--quiet", "program.py"],
        cwd=tmp_path, env=os.environ | {"RTPOOL_ACTIVATE": "0", "RTPOOL_SIZE": "1MiB"}, capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == "0 1MiB\n"
