"""Build folders of the core under build/tests, and what has to be there to fill them."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path

from runner.commands import ROOT, WORK, Runner
from runner.outcome import Failed, Skipped

# Several sources at a time: most of what they take to compile is headers. The build for release takes each by itself,
# so that each includes what it uses.
TOGETHER = ["-Dunity=on", "-Dunity_size=16"]
SANITIZED = ["-Doptimization=1", "-Ddebug=false", "-Db_ndebug=false", "-Db_lundef=false", *TOGETHER]
SANITIZED += ["-Dcore_tests=true"]
# Line numbers only: full debug information doubles the time to build.
WATCHED_ARGS = "-Dcpp_args=-g1 -fno-sanitize-recover=undefined"
WATCHED = [*SANITIZED, "-Dcheck_level=3", "-Db_sanitize=address,undefined", "-Dfuzz=true", WATCHED_ARGS]
RACES = [*SANITIZED, "-Dcheck_level=2", "-Db_sanitize=thread", "-Dcpp_args=-g1"]


def find_googletest(runner: Runner) -> None:
    """Install GoogleTest from the distribution if it is missing and may be installed; raise Skipped if not."""

    def there() -> bool:
        with tempfile.TemporaryDirectory(prefix="rtpool-gtest-") as folder:
            source = Path(folder, "probe.cpp")
            source.write_text("#include <gtest/gtest.h>\nint main() { return 0; }\n", encoding="utf-8")
            compiler = os.environ.get("CXX", "c++").split()
            return runner.run(*compiler, "-std=c++20", str(source), "-lgtest", "-o", str(Path(folder, "probe"))) == 0

    if there():
        return
    if not shutil.which(os.environ.get("CXX", "c++").split()[0]):
        raise Skipped("no C++ compiler; on Debian and Ubuntu: apt-get install g++")
    if runner.install("libgtest-dev"):
        if there():
            return
        raise Skipped(f"GoogleTest is missing and apt-get could not install libgtest-dev (see {runner.log})")
    raise Skipped("GoogleTest is missing; on Debian and Ubuntu: apt-get install libgtest-dev")


def has_libfuzzer(runner: Runner) -> bool:
    """Whether clang++ is there with libFuzzer and AddressSanitizer."""
    with tempfile.TemporaryDirectory(prefix="rtpool-clang-") as folder:
        source = Path(folder, "probe.cpp")
        text = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }\n'
        source.write_text(text, encoding="utf-8")
        command = ["clang++", "-fsanitize=fuzzer,address,undefined", str(source), "-o", str(Path(folder, "probe"))]
        return shutil.which("clang++") is not None and runner.run(*command) == 0


def configure(
    runner: Runner, folder: str, options: list[str], variables: dict[str, str] | None = None, python: bool = False
) -> Path:
    """Configure a build folder of its own, if it is not yet, and give it."""
    build = WORK / folder
    options = [f"-Dpython={str(python).lower()}", *options]
    asked = build / "asked.txt"
    if not (build / "build.ninja").exists() or not asked.exists() or asked.read_text() != repr(options):
        shutil.rmtree(build, ignore_errors=True)
        if (code := runner.run("meson", "setup", str(build), str(ROOT), *options, variables=variables)) != 0:
            raise Failed(f"meson setup: exit code {code}")
        asked.write_text(repr(options))
    return build


def configure_core(runner: Runner) -> Path:
    """The build folder of the binding and, where there is GoogleTest, of the core's tests."""
    try:
        find_googletest(runner)
        options = ["-Dcore_tests=true", "-Dcore_bench=true", "-Dtogether=true"]
    except Skipped:
        options = []  # the step says why
    return configure(runner, "core", options, python=True)


def races(runner: Runner) -> Path:
    """Build the core's tests under ThreadSanitizer, and give the folder."""
    find_googletest(runner)
    build = configure(runner, "tsan", RACES)
    runner.must("build", "ninja", "-C", str(build))
    return build


_watched_once = threading.Lock()


def watched(runner: Runner) -> tuple[Path, bool]:
    """Build the core's tests and the fuzz targets under AddressSanitizer and UndefinedBehaviorSanitizer: same objects.

    Give the folder, and whether the targets are guided: by clang's libFuzzer. Where that is there, all is by clang.
    """
    find_googletest(runner)
    guided = has_libfuzzer(runner)
    with _watched_once:  # for two steps
        build = configure(runner, "asan", WATCHED, {"CC": "clang", "CXX": "clang++"} if guided else None)
        runner.must("build", "ninja", "-C", str(build))
    return build, guided
