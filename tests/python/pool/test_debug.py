"""Debug pools find what is done wrong with the memory of arrays, and name the lines that made and freed it."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest
from waits import joined

import rtpool
from rtpool import Pool
from rtpool._pool.debug import LiveBlock, by_site

LARGE = 100_000


@pytest.fixture
def pool() -> Pool:
    return Pool(debug=True, name="debugged")


def make(pool: Pool, size: int) -> np.ndarray:
    with rtpool.handler(pool):
        return np.empty(size, np.uint8)


def told(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err


def test_it_is_off_unless_asked_for(pool: Pool) -> None:
    assert pool.debug and pool._asked()["debug"] is True and "debug" in repr(pool)
    other = Pool()
    assert not other.debug and "debug" not in repr(other)
    with pytest.raises(RuntimeError, match="debug=True"):
        other.outstanding()
    with pytest.raises(TypeError, match="debug"):
        Pool(debug=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 100, 4000, 5000])
def test_an_overrun_names_both_lines(pool: Pool, capfd: pytest.CaptureFixture[str], size: int) -> None:
    array = make(pool, size)
    ctypes.memset(array.ctypes.data + size, 0x41, 3)
    assert told(capfd) == ""
    del array
    report = told(capfd)
    assert "pool 'debugged'" in report and "OVERRUN" in report and "3 bytes, from 0 bytes past its end" in report
    assert "41 41 41" in report
    assert f"made at   {__file__}:" in report and " in make" in report
    assert f"freed at  {__file__}:" in report and " in test_an_overrun_names_both_lines" in report
    assert pool.stats().misuses == 1


@pytest.mark.parametrize("size", [1, 100, LARGE])
def test_an_underrun_is_found(pool: Pool, capfd: pytest.CaptureFixture[str], size: int) -> None:
    array = make(pool, size)
    ctypes.memset(array.ctypes.data - 2, 0, 1)
    del array
    assert "UNDERRUN" in told(capfd)


@pytest.mark.parametrize("size", [1, 100, LARGE])
def test_a_write_after_free_is_found_by_check(pool: Pool, capfd: pytest.CaptureFixture[str], size: int) -> None:
    array = make(pool, size)
    address = array.ctypes.data
    del array
    ctypes.memset(address, 1, 1)
    with pytest.raises(rtpool.CorruptionError, match="use after free") as caught:
        pool.check()
    assert caught.value.invariant == "DB-2"
    report = told(capfd)
    assert "USE AFTER FREE" in report and " in make" in report and "freed at" in report
    pool.trim()
    assert told(capfd) == ""
    pool.check()
    assert pool.stats().misuses == 1


def test_damage_of_a_live_array_is_found_by_check(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    array = make(pool, 100)
    ctypes.memset(array.ctypes.data + 100, 1, 1)
    with pytest.raises(rtpool.CorruptionError, match=r"overrun of a block of 100 bytes made at .*test_debug\.py"):
        pool.check()
    assert "OVERRUN" in told(capfd)


class DataOwner:
    """Calls the functions of a pool's handler as NumPy does."""

    def __init__(self, pool: Pool) -> None:
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        handler = get(pool._capsule, b"mem_handler")
        # char name[127]; uint8_t version; void* ctx; malloc; calloc; realloc; free
        context, _, _, _, free = (ctypes.c_void_p * 5).from_address(handler + 128)
        self._context = context
        self._free = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(free)
        self._free_without_gil = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(free)

    def free(self, address: int) -> None:
        self._free(self._context, address, 0)

    def free_without_gil(self, address: int) -> None:
        self._free_without_gil(self._context, address, 0)


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_double_free_names_three_lines(pool: Pool, capfd: pytest.CaptureFixture[str], size: int) -> None:
    array = make(pool, size)
    address = array.ctypes.data
    del array
    DataOwner(pool).free(address)
    report = told(capfd)
    assert "DOUBLE FREE" in report and "ignored" in report
    assert " in make" in report and "freed at" in report and " in free" in report
    assert pool.stats().misuses == 1
    pool.check()


def test_foreign_and_interior_pointers_are_reported(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    array, elsewhere = make(pool, 100), np.empty(100)
    DataOwner(pool).free(elsewhere.ctypes.data)
    report = told(capfd)
    assert "FOREIGN FREE" in report and " in free" in report
    DataOwner(pool).free(array.ctypes.data + 8)
    report = told(capfd)
    assert "WRONG POINTER" in report and "8 bytes from it" in report and " in make" in report
    assert pool.stats().misuses == 2
    assert pool.stats().current_count == 1


def test_without_the_gil_there_is_no_python_frame(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    DataOwner(pool).free_without_gil(np.empty(1).ctypes.data)
    assert "now at    (no Python frame)" in told(capfd)


@pytest.mark.parametrize("size", [1, 100, LARGE])
def test_memory_is_filled(pool: Pool, size: int) -> None:
    array = make(pool, size)
    assert (array == 0xCD).all()
    address = array.ctypes.data
    del array
    assert ctypes.string_at(address, size) == b"\xdd" * size
    with rtpool.handler(pool):
        assert not np.zeros(size, np.uint8).any()


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("size", [1, 100, 4032, LARGE, 3 << 20])
def test_zero_on_free_is_read_back(debug: bool, size: int) -> None:
    pool = Pool(zero_on_free=True, debug=debug)
    array = make(pool, size)
    array[:] = 7
    address = array.ctypes.data
    del array
    # The pool is alive, so its memory may be read, also where nothing lives any more.
    assert ctypes.string_at(address, size) == bytes(size)
    again = make(pool, size)
    again[:] = 7
    with rtpool.handler(pool):
        again.resize(size * 2 + 5000, refcheck=False)
    assert 7 not in ctypes.string_at(address, size) or again.ctypes.data == address
    pool.check()


def test_without_zero_on_free_memory_keeps_its_contents() -> None:
    pool = Pool()
    array = make(pool, LARGE)
    array[:] = 7
    address = array.ctypes.data
    del array
    assert ctypes.string_at(address, LARGE) == b"\7" * LARGE


def test_outstanding(pool: Pool) -> None:
    first, second = make(pool, 10), make(pool, LARGE)
    blocks = pool.outstanding()
    assert [(block.address, block.size, block.number) for block in blocks] == [
        (first.ctypes.data, 10, 1),
        (second.ctypes.data, LARGE, 2),
    ]
    assert all(block.site.startswith(f"{__file__}:") and block.site.endswith(" in make") for block in blocks)
    assert 0 <= blocks[1].age <= blocks[0].age < 60
    assert "10 B" in str(blocks[0]) and "#1" in str(blocks[0]) and " in make" in str(blocks[0])
    del first
    assert [block.number for block in pool.outstanding()] == [2]
    assert pool.stats().current_count == 1 and pool.stats().requested_bytes == LARGE
    assert isinstance(blocks[0], LiveBlock) and rtpool.LiveBlock is LiveBlock


def test_sites_are_added_up() -> None:
    blocks = [LiveBlock(0, 10, 1, 0.0, "a"), LiveBlock(0, 50, 2, 0.0, "b"), LiveBlock(0, 20, 3, 0.0, "a")]
    assert by_site(blocks) == [("b", 1, 50), ("a", 2, 30)]


def test_the_site_is_the_line_that_called_numpy(pool: Pool) -> None:
    with rtpool.handler(pool):
        kept = np.ones(10), np.linspace(0, 1, 5)
    assert kept[0].all()
    assert {block.site.rpartition(" in ")[2] for block in pool.outstanding()} == {
        "test_the_site_is_the_line_that_called_numpy"
    }


def test_functions_that_numpy_makes_are_passed_over(pool: Pool) -> None:
    """NumPy before 1.25 has some around each function, in no file."""
    made: dict[str, object] = {"np": np}
    exec(compile("def linspace():\n    return np.empty(10)", "<__array_function__ internals>", "exec"), made)
    with rtpool.handler(pool):
        kept = made["linspace"]()  # type: ignore[operator]
    (block,) = pool.outstanding()
    assert block.site.endswith(" in test_functions_that_numpy_makes_are_passed_over") and kept.size == 10


def test_sites_with_other_letters(pool: Pool) -> None:
    space: dict[str, object] = {}
    exec(compile("def größe(np):\n    return np.empty(9)", "dätei_\U0001f600_\udcff.py", "exec"), space)
    with rtpool.handler(pool):
        kept = space["größe"](np)  # type: ignore[operator]
    (block,) = pool.outstanding()
    assert block.site == "dätei_\U0001f600_?.py:2 in größe"
    del kept


def test_numpy_works_in_a_debug_pool(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    with rtpool.handler(pool):
        random = np.random.default_rng(0)
        for size in (3, 50, 1000, 30_000):
            a = random.random((size, 4))
            assert np.allclose(np.sort(a, axis=0)[::-1][::-1], np.sort(a, axis=0))
            assert np.linalg.norm(a.T @ a - np.einsum("ij,ik->jk", a, a)) < 1e-6
            b = np.concatenate([a, a])
            b.resize((size, 9), refcheck=False)
            np.unique(np.round(a, 1))
            np.array([str(x) for x in a[:3, 0]])
    pool.check()
    assert pool.stats().misuses == 0
    assert told(capfd) == ""


def test_threads(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    kept: list[np.ndarray] = []

    def work(number: int) -> None:
        with rtpool.handler(pool):
            for i in range(200):
                kept.append(np.full(number * 1000 + i, number))
                if i % 3 == 0:
                    kept.pop(0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        joined(thread)
    assert len(pool.outstanding()) == len(kept)
    kept.clear()
    assert pool.outstanding() == []
    pool.check()
    assert told(capfd) == ""


def test_a_fault_past_the_end_is_explained(run_python) -> None:
    done = run_python(
        """
        import ctypes, numpy as np, rtpool
        pool = rtpool.Pool(debug=True, name="frames")
        with rtpool.handler(pool):
            frame = np.zeros((64, 64))
        ctypes.memset(frame.ctypes.data + frame.nbytes, 1, 10)
        """,
        status=-signal.SIGSEGV,
    )
    assert "pool 'frames'" in done.stderr and "OVERRUN: access 0 bytes past the end" in done.stderr
    assert "made at   <string>:5 in <module>" in done.stderr
    assert "Fatal Python error: Segmentation fault" in done.stderr  # faulthandler comes after it
    assert "line 6 in <module>" in done.stderr


def test_faults_elsewhere_stay_what_they_are(run_python) -> None:
    done = run_python("import ctypes, rtpool; rtpool.Pool(debug=True); ctypes.string_at(1)", status=-signal.SIGSEGV)
    assert "rtpool:" not in done.stderr and "Segmentation fault" in done.stderr
    code = "import os, signal, rtpool; rtpool.Pool(debug=True); os.kill(os.getpid(), signal.SIGSEGV)"
    assert "Segmentation fault" in run_python(code, status=-signal.SIGSEGV).stderr


def test_strict_ends_the_process(run_python) -> None:
    code = """
        import ctypes, numpy as np, rtpool
        pool = rtpool.Pool(debug=True, strict=True)
        with rtpool.handler(pool):
            a = np.zeros({size}, np.uint8)
        address = a.ctypes.data
        {wrong}
    """
    overrun = "ctypes.memset(address + 100, 1, 1); del a"
    done = run_python(code.format(size=100, wrong=overrun), status=-signal.SIGABRT)
    assert "OVERRUN" in done.stderr and "made at   <string>:5" in done.stderr
    done = run_python(code.format(size=LARGE, wrong="del a; ctypes.string_at(address)"), status=-signal.SIGSEGV)
    # A page of the kernel that the block shares with the red zone before it cannot be closed.
    touched = re.search(r"USE AFTER FREE: access (\d+) bytes into", done.stderr)
    assert touched is not None and "freed at  <string>:7" in done.stderr
    assert int(touched[1]) <= mmap.PAGESIZE - 4096


def test_the_end_of_the_process_has_a_last_look(run_python) -> None:
    done = run_python(
        """
        import ctypes, numpy as np, rtpool
        pool = rtpool.default_pool()
        assert pool.debug and pool.effective.asked["debug"] is True
        rtpool.activate()
        kept = np.zeros(100, np.uint8)
        ctypes.memset(kept.ctypes.data + 100, 1, 1)
        """,
        RTPOOL_DEBUG="1",
    )
    assert "OVERRUN" in done.stderr and "found by a check" in done.stderr and "<string>:6" in done.stderr


def test_a_forked_child(run_python) -> None:
    run_python(
        """
        import os, numpy as np, rtpool
        pool = rtpool.Pool(debug=True)
        with rtpool.handler(pool):
            a = np.zeros(100_000)
            child = os.fork()
            a += 1
            b = np.ones(50_000)
            del a, b
            pool.check()
            assert pool.outstanding() == [] and pool.stats().misuses == 0
        if child:
            assert os.waitpid(child, 0)[1] == 0
        """
    )


# With the start-up file, and where there is none in force: then the program runs in the process of the command.
@pytest.mark.parametrize("flags", [[], ["-S"]], ids=["start-up", "in place"])
def test_run_lists_leaks(flags: list[str], tmp_path: Path) -> None:
    def run_rtpool(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *flags, "-m", "rtpool", "run", *arguments]
        path = {"PYTHONPATH": sysconfig.get_path("platlib")} if flags else {}
        return subprocess.run(command, env=os.environ | path, capture_output=True, text=True, timeout=120, check=False)

    (tmp_path / "keeper.py").write_text("kept = []\n")
    program = tmp_path / "program.py"
    program.write_text(
        "import keeper, numpy as np\n"
        "def load():\n"
        "    return np.ones(1000)\n"
        "for _ in range(3):\n"
        "    keeper.kept.append(load())\n"
        "ring = [np.zeros(77)]\n"
        "ring.append(ring)\n"
        "gone = np.zeros(10_000)\n"
    )
    done = run_rtpool("--leaks", str(program))
    assert done.returncode == 0, done.stderr
    assert "left behind 3 blocks of 23.4 KiB together" in done.stderr
    assert f"{program}:3 in load" in done.stderr
    assert f"{program}:6" not in done.stderr and f"{program}:8" not in done.stderr
    done = run_rtpool("--leaks", "--json", "-", str(program))
    (leak,) = json.loads(done.stderr)["leaks"]
    assert leak == {"site": f"{program}:3 in load", "blocks": 3, "bytes": 24_000}
    program.write_text("import numpy as np\na = np.ones(10)\n")
    assert "left behind nothing" in run_rtpool("--leaks", str(program)).stderr
    assert "left behind" not in run_rtpool(str(program)).stderr
