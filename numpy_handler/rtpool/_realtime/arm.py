"""Names of Arm processors, whose /proc/cpuinfo gives numbers."""

from __future__ import annotations

import re
from collections import Counter

# Implementer, then part, as in the register MIDR_EL1.
_PARTS = {
    0x41: {
        0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
        0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse N1", 0xD0D: "Cortex-A77",
        0xD0E: "Cortex-A76AE", 0xD40: "Neoverse V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1",
        0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse N2", 0xD4A: "Neoverse E1",
        0xD4B: "Cortex-A78C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse V2", 0xD80: "Cortex-A520",
        0xD81: "Cortex-A720", 0xD82: "Cortex-X4", 0xD84: "Neoverse V3", 0xD8E: "Neoverse N3",
    },
    0x46: {0x001: "A64FX"},
    0x48: {0xD01: "Kunpeng 920"},
    0x4E: {0x003: "Denver 2", 0x004: "Carmel"},
    0xC0: {0xAC3: "Ampere-1", 0xAC4: "Ampere-1A"},
}  # fmt: skip
_IMPLEMENTERS = {
    0x41: "Arm", 0x46: "Fujitsu", 0x48: "HiSilicon", 0x4E: "NVIDIA", 0x51: "Qualcomm", 0x61: "Apple", 0xC0: "Ampere",
}  # fmt: skip


def processor_of(cpuinfo: str) -> str | None:
    """Name the kinds of cores in the text of /proc/cpuinfo, and how many of each; `None` if it names no parts.

    Examples
    --------
    >>> processor_of("CPU implementer : 0x41\\nCPU part : 0xd0b\\n" * 4)
    '4 x Arm Cortex-A76'
    """
    implementers = re.findall(r"^CPU implementer\s*:\s*(0x[0-9a-fA-F]+)", cpuinfo, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*(0x[0-9a-fA-F]+)", cpuinfo, re.MULTILINE)
    kinds = Counter(zip(implementers, parts, strict=False))
    if not kinds:
        return None
    return " + ".join(f"{count} x {_name(int(who, 16), int(part, 16))}" for (who, part), count in kinds.items())


def _name(implementer: int, part: int) -> str:
    maker = _IMPLEMENTERS.get(implementer, f"implementer {implementer:#x}")
    known = _PARTS.get(implementer, {}).get(part, f"part {part:#x}")
    return known if known.startswith(maker) else f"{maker} {known}"
