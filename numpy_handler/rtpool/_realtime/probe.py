"""What the kernel says of itself: small files below /proc and /sys, read without trusting that they are there."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path


class Machine:
    """Reads the machine. Tests give another `root`."""

    def __init__(self, root: str = "/") -> None:
        self.root = Path(root)

    def text(self, path: str) -> str | None:
        """A file's content, stripped; `None` if it cannot be read."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """A file's content as a whole number."""
        text = self.text(path)
        try:
            return None if text is None else int(text.split()[0])
        except (ValueError, IndexError):
            return None

    def chosen(self, path: str) -> str | None:
        """The choice in brackets of a file such as ``always [madvise] never``, or the only word there is."""
        text = self.text(path)
        if not text:
            return None
        match = re.search(r"[\[(]([^\])]+)[\])]", text)
        return match[1] if match else text.split()[0]

    def directories(self, path: str, prefix: str) -> Iterator[Path]:
        """Directories with a name of `prefix` and a number."""
        try:
            names = sorted(os.listdir(self.root / path))
        except OSError:
            return
        for name in names:
            if re.fullmatch(prefix + r"\d+", name):
                yield self.root / path / name

    def kernel(self) -> str:
        """Release and version of the kernel."""
        return f"{platform.system()} {platform.release()} {platform.version()}"

    def preemption(self) -> str:
        """The preemption model: ``PREEMPT_RT``, ``full``, ``lazy``, ``voluntary``, ``none``, or another word."""
        if self.number("sys/kernel/realtime") == 1 or "PREEMPT_RT" in platform.version():
            return "PREEMPT_RT"
        debug = self.chosen("sys/kernel/debug/sched/preempt")
        if debug:
            return debug
        for option in (self.text("proc/cmdline") or "").split():
            if option.startswith("preempt="):
                return option.partition("=")[2]
        return self._preemption_of_version()

    def _preemption_of_version(self) -> str:
        config = self._config()
        version = platform.version()
        if "PREEMPT_DYNAMIC" in version:
            for option, name in (("NONE", "none"), ("VOLUNTARY", "voluntary"), ("LAZY", "lazy")):
                if f"\nCONFIG_PREEMPT_{option}=y" in config:
                    return name
            return "full" if "\nCONFIG_PREEMPT=y" in config else "dynamic"
        if "PREEMPT" in version:
            return "full"
        return "voluntary" if "\nCONFIG_PREEMPT_VOLUNTARY=y" in config else "none"

    def _config(self) -> str:
        import gzip

        try:
            with gzip.open(self.root / "proc/config.gz", "rt", encoding="utf-8", errors="replace") as file:
                return "\n" + file.read()
        except (OSError, EOFError):
            return "\n" + (self.text(f"boot/config-{platform.release()}") or "")

    def is_virtual(self) -> bool | None:
        """Whether a hypervisor runs this machine; `None` where the processor does not say."""
        info = self.text("proc/cpuinfo")
        if info is None or "flags" not in info:
            return None
        return re.search(r"^flags\s*:.*\bhypervisor\b", info, re.MULTILINE) is not None

    def governors(self) -> set[str]:
        """The frequency governors in force; empty where frequencies are not ours to set."""
        found = {
            self.text(f"{cpu.relative_to(self.root)}/cpufreq/scaling_governor")
            for cpu in self.directories("sys/devices/system/cpu", "cpu")
        }
        return {governor for governor in found if governor}

    def deepest_idle_latency(self) -> int | None:
        """Microseconds that leaving the deepest enabled idle state takes; `None` where the kernel does not say."""
        deepest: int | None = None
        for cpu in self.directories("sys/devices/system/cpu", "cpu"):
            for state in self.directories(f"{cpu.relative_to(self.root)}/cpuidle", "state"):
                inside = state.relative_to(self.root)
                latency = self.number(f"{inside}/latency")
                if latency is not None and self.number(f"{inside}/disable") != 1:
                    deepest = max(latency, deepest or 0)
        return deepest

    def swap_kib(self) -> int:
        """Swap space in use or ready, KiB."""
        match = re.search(r"^SwapTotal:\s*(\d+)", self.text("proc/meminfo") or "", re.MULTILINE)
        return int(match[1]) if match else 0

    def reclaimers(self) -> list[str]:
        """Switches of what takes unused pages out of memory although there is room (DAMON), where it is on."""
        found = []
        if self.text("sys/module/damon_reclaim/parameters/enabled") in ("Y", "y", "1"):
            found.append("/sys/module/damon_reclaim/parameters/enabled")
        for worker in self.directories("sys/kernel/mm/damon/admin/kdamonds", ""):
            inside = worker.relative_to(self.root)
            actions = {
                self.text(f"{scheme.relative_to(self.root)}/action")
                for context in self.directories(f"{inside}/contexts", "")
                for scheme in self.directories(f"{context.relative_to(self.root)}/schemes", "")
            }
            if self.text(f"{inside}/state") == "on" and "pageout" in actions:
                found.append(f"/{inside}/state")
        return found
