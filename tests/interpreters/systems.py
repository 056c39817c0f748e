"""Other Debian systems on this machine, and what runs in them as it would on such a machine.

A system is the root folder of one, as `debootstrap` makes them: one with g++, Python and python3-venv. A command
there sees this tree at the same path. The system itself stays as it is: what a command changes outside of the tree
lies in a layer of its own and goes with the object. Needs root, and overlayfs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

# The network and package settings of this machine.
SETTINGS = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/xdg/pip", "/etc/ssl/certs", "/usr/local/share/ca-certificates",
            "/etc/apt/apt.conf.d")  # fmt: skip
# Compilers and launchers that are set here need not be there.
UNSET = ("CC", "CXX", "CCACHE_DIR", "PYTHONPATH", "VIRTUAL_ENV")
MOUNT = """
trap '' HUP INT TERM  # these are for the one that asked; what is mounted here is taken down when that is no more
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$LAYER/upper,workdir=$LAYER/work" "$LAYER/root"
mount -t proc proc "$LAYER/root/proc"
mount --rbind /dev "$LAYER/root/dev"
mount --rbind /sys "$LAYER/root/sys"
for folder in $FOLDERS; do
  mkdir -p "$LAYER/root$folder"
  mount --bind "$folder" "$LAYER/root$folder"
done
echo ready
cat >/dev/null  # until the one that asked closes this, or is no more
cd /
umount --recursive --lazy "$LAYER/root"
rm -rf --one-file-system "$LAYER"
"""


class Unavailable(Exception):
    """This machine cannot show other systems; the text says why."""


def known(folder: Path | None = None) -> list[Path]:
    """Root folders of systems that lie in `folder` (by default where `fresh-machine` keeps them)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    places = sorted((folder or cache / "fresh-machine").glob("*/etc/os-release"))
    return [place.parent.parent for place in places if not place.parent.parent.name.startswith("run.")]


def package_folders() -> list[str]:
    """Folders with packages that pip is set to look in."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    found = re.findall(
        r"(?:file://)?(/[\w./+-]+)", told.stdout + " ".join(os.environ.get("PIP_FIND_LINKS", "").split())
    )
    return sorted({path for path in found if Path(path).is_dir()})


class System:
    """One of them, entered: `with System(root, tree) as system: subprocess.run(system.command("python3", "-V"))`."""

    def __init__(self, root: Path, tree: Path, folders: Sequence[str] = ()) -> None:
        """`folders`: of this machine, to be seen there as well."""
        self.root = root
        self.tree = tree.resolve()
        self._folders = [str(self.tree), *package_folders(), *folders]
        release = (root / "etc/os-release").read_text(encoding="utf-8")
        name = re.search(r'^PRETTY_NAME="?([^"\n]*)', release, re.MULTILINE)
        self.name = name.group(1) if name else root.name
        self._layer: Path | None = None
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> System:
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            raise Unavailable(f"{self.name}: only root may enter another system")
        layer = self._layer = Path(tempfile.mkdtemp(prefix="rtpool-system-"))
        for folder in ("upper", "work", "root"):
            (layer / folder).mkdir()
        for setting in map(Path, SETTINGS):
            if setting.exists():
                inside = layer / "upper" / setting.relative_to("/")
                inside.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "--archive", "--dereference", setting, inside], check=True)
        environment = {"LOWER": str(self.root), "LAYER": str(layer)}
        environment["FOLDERS"] = " ".join(self._folders)
        # A mount namespace of its own: nobody else sees the mounts, and they end with the process that holds it.
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-euc", MOUNT],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None and self._holder.stderr is not None
        if self._holder.stdout.readline().strip() != "ready":
            reason = self._holder.stderr.read().strip()
            self.__exit__(None, None, None)
            raise Unavailable(f"{self.name}: {reason}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holder is not None:
            self._holder.communicate()

    def command(self, *parts: object, cwd: Path | None = None) -> list[str]:
        """The command line that runs `parts` there, in `cwd` (a folder of the tree)."""
        assert self._holder is not None, "not entered"
        enter = ["nsenter", f"--target={self._holder.pid}", "--mount", "chroot", f"{self._layer}/root", "env"]
        enter += [f"--chdir={cwd or self.tree}", *(f"--unset={name}" for name in UNSET), "HOME=/root", "LANG=C.UTF-8"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [*enter, path, "DEBIAN_FRONTEND=noninteractive", *map(str, parts)]
