"""The documentation site, by one command on a machine with Python and a compiler:

    python3 docs/build.py

It makes an environment of its own in build/docs, installs rtpool there with the extra `docs`, and builds docs/ into
build/docs/html; warnings are errors. `--links` follows the links to other sites as well.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = ROOT / "build" / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", action="store_true", help="follow links to other sites instead")
    parser.add_argument("--here", action="store_true", help="this Python, with rtpool and its extra docs")
    arguments = parser.parse_args()
    python = sys.executable
    if not arguments.here:
        python = str(WORK / "venv" / "bin" / "python")
        if not Path(python).exists():
            subprocess.run([sys.executable, "-m", "venv", str(WORK / "venv")], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[docs]"], check=True)
    builder = "linkcheck" if arguments.links else "html"
    command = [python, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--builder", builder]
    command += ["--doctree-dir", str(WORK / "doctrees"), str(HERE), str(WORK / builder)]
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
