"""What a browser shows: pictures for the book, taken of real programs, and the built pages as people see them.

    python docs/screenshots.py pictures     the report, the profile and the timeline, into docs/_static/pictures
    python docs/screenshots.py pages        every built page, phone and desk, light and dark, into build/docs/looks

`pages` fails where a page is wider than the screen or an image does not load. Needs a Chromium (`apt-get install
chromium`) and `pip install playwright`, which drives it; rtpool with its extra `plot` for `pictures`, a built site for
`pages`.
"""

from __future__ import annotations

import argparse
import html
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PICTURES = HERE / "_static" / "pictures"
SITE = ROOT / "build" / "docs" / "html"
LOOKS = ROOT / "build" / "docs" / "looks"
SCREENS = {"phone": (390, 844), "desk": (1440, 900)}
SCHEMES = ("light", "dark")

# Runs an example and keeps what it made of its report.
REPORT = """
import runpy, sys
report = runpy.run_path(sys.argv[1])["rt"].report
report.plot(sys.argv[2] + "/report.svg")
"""
# Makes the page of a trace.
TRACE = """
import sys
import rtpool
rtpool.Trace.load(sys.argv[1] + "/loop.trace").to_html(sys.argv[1] + "/trace.html")
"""
EXAMPLE = "examples/realtime_loop.py"


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium of the system, without a window."""
    from playwright.sync_api import sync_playwright

    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        sys.exit("there is no Chromium; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()


def run(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def take_report(running: Any, folder: Path) -> None:
    """What a real-time section prints, and its plot."""
    text = run("-c", REPORT, EXAMPLE, str(folder))
    page = running.new_page(viewport={"width": 980, "height": 600})
    page.set_content(
        "<body style='margin:0;padding:14px 18px;background:#15191f;color:#d8dee6'>"
        "<pre style='font:13px/1.42 DejaVu Sans Mono,monospace;margin:0'>"
        f"<span style='color:#7fb4ff'>$</span> python {EXAMPLE}\n{html.escape(text)}</pre></body>"
    )
    page.screenshot(path=PICTURES / "report.png", full_page=True)
    plot = (folder / "report.svg").read_text(encoding="utf-8")
    page.set_content(f"<body style='margin:0;background:#fff'>{plot}</body>")
    page.locator("svg").first.screenshot(path=PICTURES / "report-plot.png")
    page.close()


def take_trace(running: Any, folder: Path) -> None:
    """The page of a trace: its timeline, and the profile below it."""
    run("-m", "rtpool", "run", "--quiet", "--record", str(folder / "loop.trace"), EXAMPLE)
    run("-c", TRACE, str(folder))
    page_of_trace = folder / "trace.html"
    text = page_of_trace.read_text(encoding="utf-8")
    page_of_trace.write_text(text.replace(f"{ROOT}/", ""), encoding="utf-8")  # where this copy of the sources lies
    for scheme in SCHEMES:
        context = running.new_context(viewport={"width": 1100, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.goto(page_of_trace.as_uri())
        page.wait_for_load_state("networkidle")

        def top(heading: str) -> float:
            box = page.get_by_role("heading", name=heading).bounding_box()  # noqa: B023 - called in this turn
            return float(box["y"]) - 12

        for name, first, last in (
            ("timeline", 0.0, top("Who made them")),
            ("profile", top("Who made them"), top("Misses")),
        ):
            clip = {"x": 0, "y": first, "width": 1100, "height": last - first}
            page.screenshot(path=PICTURES / f"{name}-{scheme}.png", full_page=True, clip=clip)
        context.close()


def pictures() -> int:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rtpool-pictures-") as name, browser() as running:
        take_report(running, Path(name))
        take_trace(running, Path(name))
    return 0


# What makes a page wider than its screen, or leaves a hole in it.
FAULTS = """
() => {
  const faults = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width + 1) {
    const wide = [...document.querySelectorAll("main *, article *")]
      .filter(e => e.getBoundingClientRect().right > width + 1)
      .filter(e => !e.closest("svg, pre, .rtpool-plot, .pst-scrollable-table-container"))
      .slice(0, 3).map(e => e.tagName + "." + e.className);
    faults.push(`${document.documentElement.scrollWidth} wide on ${width}: ${wide.join(", ")}`);
  }
  for (const image of document.images) if (!image.naturalWidth) faults.push(`no image: ${image.src}`);
  return faults;
}
"""


def pages(wanted: list[str]) -> int:
    built = sorted(path for path in SITE.rglob("*.html") if "_static" not in path.parts)
    if not built:
        sys.exit("there is no site; python3 docs/build.py builds it")
    shutil.rmtree(LOOKS, ignore_errors=True)
    faults = []
    with browser() as running:
        for screen, (width, height) in SCREENS.items():
            for scheme in SCHEMES:
                context = running.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                page = context.new_page()
                for path in built:
                    name = path.relative_to(SITE).with_suffix("").as_posix()
                    if wanted and not any(part in name for part in wanted):
                        continue
                    page.goto(path.as_uri())
                    faults += [f"{name}, {screen}, {scheme}: {fault}" for fault in page.evaluate(FAULTS)]
                    target = LOOKS / screen / scheme / f"{name.replace('/', '-')}.png"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    page.screenshot(path=target, full_page=True)
                context.close()
    print("\n".join(faults) or f"{len(built)} pages fit their screens: {LOOKS}")
    return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pictures", "pages"))
    parser.add_argument("names", nargs="*", help="pages: those whose names contain one of these")
    arguments = parser.parse_args()
    return pictures() if arguments.what == "pictures" else pages(arguments.names)


if __name__ == "__main__":
    sys.exit(main())
