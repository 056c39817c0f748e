"""An emulated 64-bit Arm machine: a Debian kernel with pages of 4 or 16 KiB, and a system in memory below it.

Everything comes from Debian's archive (the suite below, arm64) and, for NumPy and pytest, from the package index
pip uses. It is fetched once into a folder and kept. qemu-system runs it; a process emulator (qemu-user) would
answer for the kernel in just those calls that matter here. What emulation on a PC cannot show: weaker orders of
memory than the PC's, and times.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

SUITE = "trixie"
# Of each: the kernel's package, and a processor that has such pages.
KERNELS = {"4k": ("linux-image-arm64", "cortex-a72"), "16k": ("linux-image-arm64-16k", "cortex-a76")}
PACKAGES = ("python3", "libpython3-dev", "libstdc++6", "dash", "busybox-static", "procps")
PACKAGES += ("util-linux", "mount", "libcap2-bin")  # for tests that take rights and file systems away
PACKAGES += ("g++", "pkgconf", "strace")  # for clients of the C interface, and for what a loop asks of the kernel
WHEELS = ("numpy>=2", "pytest>=7", "hypothesis", "ipython", "jsonschema")
APPLETS = (
    "ls cat mkdir rmdir sleep poweroff env uname grep sed awk head tail wc id timeout sort tr find ln rm cp mv touch"
    " test chmod dirname basename readlink df free nproc seq stat true false"
)
LINKS = {"cc": "gcc", "c++": "g++"}  # which packages make as they are installed
# An instruction takes 2 ns there.
OWN_TIME = ["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off"]
NEEDED = {"qemu-system-aarch64": "qemu-system-arm", "cpio": "cpio", "dpkg": "dpkg"}

# What the emulated machine runs first: it mounts, runs the command and goes off.
INIT = """#!/bin/sh
export PATH=/usr/local/bin:/usr/bin:/usr/sbin HOME=/root LANG=C.UTF-8
mkdir -p /proc /sys /dev /tmp /root /run
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs none /dev/shm
mount -t devpts none /dev/pts
mount -t tmpfs none /tmp
mount -t cgroup2 none /sys/fs/cgroup && echo +memory >/sys/fs/cgroup/cgroup.subtree_control
busybox ip link set lo up
mkdir -p /etc
[ -e /etc/passwd ] || echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
[ -e /etc/hosts ] || echo '127.0.0.1 localhost' >/etc/hosts
cd /job
sh /job/.command
poweroff -f
"""


class Unavailable(Exception):
    """This machine cannot run the emulation; the text says what is missing."""


class Store:
    """What was fetched: a system's root folder and kernels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.ready = folder / "root.ready"
        for program, package in NEEDED.items():
            if shutil.which(program) is None:
                raise Unavailable(f"no {program}: apt-get install {package}")

    def _apt(self, *arguments: str, cwd: Path | None = None) -> str:
        """Debian's package client, with a state of its own for the other architecture."""
        state = self.folder / "apt"
        settings = state / "apt.conf"
        wanted = (
            f'Dir::State "{state}";\nDir::State::lists "{state}/lists";\nDir::State::status "{state}/status";\n'
            f'Dir::Cache "{state}/cache";\n'
            f'Dir::Etc::sourcelist "{state}/sources.list";\nDir::Etc::sourceparts "-";\n'
            'APT::Architecture "arm64";\nAPT::Architectures "arm64";\nAPT::Install-Recommends "false";\n'
            'APT::Sandbox::User "root";\n'
        )
        # There are none, or they are of a folder that was moved.
        if not settings.exists() or settings.read_text(encoding="utf-8") != wanted:
            for part in ("lists/partial", "cache/archives/partial"):
                (state / part).mkdir(parents=True, exist_ok=True)
            (state / "status").touch()
            (state / "sources.list").write_text(f"deb [trusted=yes arch=arm64] {debian_mirror()} {SUITE} main\n")
            settings.write_text(wanted, encoding="utf-8")
            self._apt("apt-get", "-qq", "update")
        done = subprocess.run(
            arguments,
            cwd=cwd,
            env=os.environ | {"APT_CONFIG": str(settings)},
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise Unavailable(f"{' '.join(arguments)}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def system(self) -> Path:
        """The root folder of a system with Python, its headers, NumPy and pytest."""
        wanted = " ".join((*PACKAGES, *WHEELS, *APPLETS.split())) + "\n"
        if self.ready.exists() and self.ready.read_text(encoding="utf-8") == wanted:
            return self.root
        self.ready.unlink(missing_ok=True)
        shutil.rmtree(self.root, ignore_errors=True)
        for part in ("usr/bin", "usr/sbin", "usr/lib", "job"):
            (self.root / part).mkdir(parents=True)
        for name in ("bin", "sbin", "lib"):
            (self.root / name).symlink_to(f"usr/{name}")
        self._apt("apt-get", "-qq", "-y", "--download-only", "install", *PACKAGES)
        for package in sorted((self.folder / "apt/cache/archives").glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, self.root], check=True)
        for unused in ("doc", "man", "locale", "info"):
            shutil.rmtree(self.root / "usr/share" / unused, ignore_errors=True)
        for large in ("bin/*lto-dump*", "libexec/gcc/*/*/lto1", "lib/python3*/config-*/*.a"):
            for file in self.root.glob(f"usr/{large}"):
                file.unlink()
        for name, program in LINKS.items():
            (self.root / "usr/bin" / name).symlink_to(program)
        for applet in APPLETS.split():
            if not any((self.root / "usr" / folder / applet).exists() for folder in ("bin", "sbin")):
                (self.root / "usr/bin" / applet).symlink_to("busybox")
        version = next(self.root.glob("usr/lib/python3.[0-9]*")).name.removeprefix("python")
        # Python.h includes a file of its architecture by a path that only a compiler of that system knows.
        headers = self.root / f"usr/include/python{version}/aarch64-linux-gnu"
        headers.symlink_to("../aarch64-linux-gnu")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
        pip += [
            "--no-compile",
            "--implementation=cp",
            f"--python-version={version}",
            f"--target={self.root}/usr/lib/python3/dist-packages",
        ]
        pip += [f"--platform={tag}_aarch64" for tag in ("manylinux_2_28", "manylinux_2_27", "manylinux2014")]
        subprocess.run([*pip, *WHEELS], check=True)
        self.compile(version)
        self.ready.write_text(wanted, encoding="utf-8")
        return self.root

    def compile(self, version: str) -> None:
        """What Python would do at each first import, in each machine anew: by the same version of it, if it is here."""
        python = shutil.which(f"python{version}")
        if python is not None:
            folders = [self.root / "usr/lib" / name for name in (f"python{version}", "python3")]
            command = [python, "-m", "compileall", "-q", "-s", self.root, "-p", "/", *folders]
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kernel(self, pages: str) -> Path:
        folder = self.folder / f"kernel-{pages}"
        found = sorted(folder.glob("boot/vmlinuz-*"))
        if found:
            return found[0]
        self.folder.mkdir(parents=True, exist_ok=True)
        depends = self._apt("apt-cache", "depends", KERNELS[pages][0])
        package = next(line.split()[1] for line in depends.splitlines() if "Depends: linux-image-" in line)
        self.unpack(package, folder)
        shutil.rmtree(folder / "usr", ignore_errors=True)  # modules: none is needed
        return sorted(folder.glob("boot/vmlinuz-*"))[0]

    def unpack(self, package: str, folder: Path) -> None:
        """Fetch one package and lay its files below a folder."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            self._apt("apt-get", "-qq", "download", package, cwd=Path(place))
            (archive,) = list(Path(place).glob("*.deb"))
            subprocess.run(["dpkg", "-x", archive, folder], check=True)

    def boot(
        self,
        pages: str,
        work: Path,
        command: str,
        memory: int = 3072,
        silence: float = 3600,
        own_time: bool = False,
    ) -> Iterator[str]:
        """Run a shell command in a machine that has `work` as /job; yields its lines as they come.

        `memory` is in MiB. A machine that says nothing for `silence` seconds of this one is switched off. `own_time`:
        its clock counts its instructions instead of following this machine's, so that a loop there keeps its deadlines
        however slow the emulation is; a wait takes no time at all, and its processors take turns.
        """
        kernel = self.kernel(pages)
        root, packed = self.system(), self.folder / "root.cpio"
        # By the file that says it is complete: the folder itself has the date that a package gave it.
        if not packed.exists() or packed.stat().st_mtime < self.ready.stat().st_mtime:
            pack(root, packed)
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            tree = Path(place) / "tree"
            shutil.copytree(work, tree / "job", symlinks=True)
            (tree / "job").chmod(0o755)  # also for who is not root there
            (tree / "job/.command").write_text(command + "\n")
            (tree / "init").write_text(INIT)
            (tree / "init").chmod(0o755)
            initrd = Path(place) / "initrd"
            # The kernel unpacks one archive after the other.
            with initrd.open("wb") as file:
                file.write(packed.read_bytes())
                file.write(pack(tree, Path(place) / "tree.cpio").read_bytes())
            line = ["qemu-system-aarch64", "-M", "virt,gic-version=3", "-cpu", KERNELS[pages][1], "-smp", "2"]
            line += OWN_TIME if own_time else ["-accel", "tcg,thread=multi"]
            line += ["-m", str(memory), "-nic", "none", "-nographic", "-no-reboot"]
            line += ["-kernel", str(kernel), "-initrd", str(initrd)]
            line += ["-append", "console=ttyAMA0 quiet panic=-1 rdinit=/init"]
            yield from lines_of(line, silence)


def lines_of(command: list[str], silence: float) -> Iterator[str]:
    """What a command prints; it is ended when it says nothing for so many seconds, and with who reads it."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    watch = threading.Timer(silence, process.kill)
    try:
        watch.start()
        for line in process.stdout:
            watch.cancel()
            yield line.rstrip("\r\n")
            watch = threading.Timer(silence, process.kill)
            watch.start()
    finally:
        watch.cancel()
        process.kill()
        process.wait()


def pack(folder: Path, archive: Path) -> Path:
    """A folder as the archive that a kernel unpacks."""
    with tempfile.NamedTemporaryFile(dir=archive.parent, delete=False) as file:
        names = subprocess.Popen(["find", ".", "-print0"], cwd=folder, stdout=subprocess.PIPE)
        subprocess.run(
            ["cpio", "--null", "-o", "-H", "newc", "--quiet"], cwd=folder, stdin=names.stdout, stdout=file, check=True
        )
        names.wait()
    return Path(file.name).replace(archive)  # at once: other machines may be starting


def debian_mirror() -> str:
    """Where this machine gets Debian's packages from; the public mirror where it has none."""
    for source in (*Path("/etc/apt/sources.list.d").glob("*.sources"), *Path("/etc/apt").glob("sources.list*")):
        if not source.is_file():
            continue
        for line in source.read_text(errors="replace").splitlines():
            words = line.split()
            if words[:1] == ["URIs:"] or words[:1] == ["deb"]:
                urls = [word for word in words if word.startswith(("http:", "https:", "mirror+"))]
                if urls and "security" not in urls[0]:
                    return urls[0]
    return "http://deb.debian.org/debian"
