"""The line that gives a machine huge pages, for kernels with small and large pages."""

from __future__ import annotations

from pathlib import Path

from rtpool import _core
from rtpool._support.huge_pages import explicit_fix, transparent_fix

MIB = 1 << 20


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_the_setting_that_decides_is_the_one_that_is_named() -> None:
    own = "/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
    assert transparent_fix(own, larger="") == f"echo madvise > {own} (as root)"
    larger = "/sys/kernel/mm/transparent_hugepage/hugepages-32768kB/enabled"
    assert transparent_fix(own, larger=larger) == f"echo madvise > {own}; echo never > {larger} (as root)"
    setting = _core.transparent_huge_setting()
    assert (setting == "") == (_core.transparent_huge_pages() == "unknown")
    assert (_core.transparent_huge_pages() == "larger") <= (_core.larger_huge_setting() != "")
    assert not setting or Path(setting).read_text().split() and setting in transparent_fix()


def test_kernels_without_huge_pages_of_2_mib_say_what_they_have(tmp_path: Path) -> None:
    assert "without transparent huge pages" in transparent_fix("", str(tmp_path))
    write(tmp_path, "sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "33554432\n")
    fix = transparent_fix("", str(tmp_path))
    assert "Linux 6.8" in fix and "32 MiB" in fix and "2 MiB" in fix


def test_explicit_pages_are_asked_for_by_their_size(tmp_path: Path) -> None:
    root = str(tmp_path)
    write(tmp_path, "proc/meminfo", "MemTotal: 7 kB\nHugepagesize:       2048 kB\n")
    assert explicit_fix(2 * MIB, 5, root) == "sysctl -w vm.nr_hugepages=5 (as root)"
    assert "hugepages-1048576kB/nr_hugepages" in explicit_fix(1 << 30, 2, root)
    # A kernel with pages of 16 KiB: the default size is another one.
    write(tmp_path, "proc/meminfo", "MemTotal: 7 kB\nHugepagesize:      32768 kB\n")
    folder = "/sys/kernel/mm/hugepages/hugepages-2048kB"
    assert explicit_fix(2 * MIB, 5, root) == f"echo 5 > {folder}/nr_hugepages (as root)"
    for size in (2048, 32768, 1048576):
        write(tmp_path, f"sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages", "0")
    assert explicit_fix(2 * MIB, 5, root) == f"echo 5 > {folder}/nr_hugepages (as root)"
    (tmp_path / "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages").unlink()
    (tmp_path / "sys/kernel/mm/hugepages/hugepages-1048576kB").rmdir()
    assert "2048kB, 32768kB only" in explicit_fix(1 << 30, 1, root)
