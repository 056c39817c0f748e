"""What the kernel says of itself: small files below /proc and /sys, read without trusting that they are there."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

from .arm import processor_of

# What the firmware of virtual machines calls itself (DMI, device tree).
_VIRTUAL = re.compile(
    r"QEMU|KVM|linux,dummy-virt|VMware|VirtualBox|innotek|Xen|Bochs|Parallels|BHYVE|Virtual Machine|Virtualization"
    r"|OpenStack|Google Compute Engine|Amazon EC2|Alibaba Cloud|HVM domU"
)


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

    def processor(self) -> str:
        """The processor's name; on Arm the kinds of cores, and the board where firmware names it."""
        info = self.text("proc/cpuinfo") or ""
        match = re.search(r"^model name\s*:\s*(.*\S)", info, re.MULTILINE)
        if match:
            return match[1]
        cores = processor_of(info)
        board = (self.text("proc/device-tree/model") or "").rstrip("\0")
        if cores and board:
            return f"{board} ({cores})"
        return cores or board or platform.processor() or platform.machine()

    def is_virtual(self) -> bool | None:
        """Whether a hypervisor runs this machine; `None` where neither processor nor firmware says."""
        info = self.text("proc/cpuinfo") or ""
        if re.search(r"^flags\s*:", info, re.MULTILINE):
            return re.search(r"^flags\s*:.*\bhypervisor\b", info, re.MULTILINE) is not None
        if self.text("sys/hypervisor/type") or (self.root / "proc/device-tree/hypervisor").is_dir():
            return True
        dmi = (self.text(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name", "bios_vendor"))
        tree = (self.text(f"proc/device-tree/{name}") for name in ("model", "compatible"))
        told = " ".join(text for text in (*dmi, *tree) if text)
        if not told:
            return None
        # A whole machine of a cloud has the cloud's name too.
        return _VIRTUAL.search(told) is not None and not re.search(r"\.metal\b", told)

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
