"""What runs when a Python starts in whose environment RTPOOL_ACTIVATE is set: `begin`.

Named by rtpool.pth and rtpool.start, beside which it is installed. It imports nothing of rtpool or NumPy and lets no
exception out: it waits until NumPy has been imported, and then has ``rtpool._startup`` activate the process.

How it waits: a finder in front of all others gives NumPy's spec as the others find it, with a class that notices when
the import system says that the import is over. So no line of this file is in a traceback of an import that fails, and
the module's loader is the one it has without.

PYTEST_DONT_REWRITE: it is there before pytest, which would warn that it cannot look into its asserts; there are none.
"""

import os
import sys
import time

MODES = ("1", "arrays")

started = None  # the `Start` of this process, if there is one


class Start:
    """What is known of a process since its beginning."""

    def __init__(self, mode, run):
        self.mode = mode
        self.run = run  # options of `python -m rtpool run` as JSON, or None
        self.pid = os.getpid()
        self.begun = time.monotonic()
        self.session = None
        self.finder = None
        if run is not None or "RTPOOL_SUMMARY" in os.environ:
            self.faults_before = (0, 0)
            self.faults_before = self.faults()
            self.stderr = file_behind(2)

    def numpy_is_there(self):
        """NumPy was imported: activate, once."""
        if self.finder is None:
            return
        # Where rtpool itself brought NumPy, it is not whole yet.
        spec = getattr(sys.modules.get("rtpool"), "__spec__", None)
        if getattr(spec, "_initializing", False):
            watch(spec, self.numpy_is_there)
            return
        finder, self.finder = self.finder, None
        try:
            sys.meta_path.remove(finder)
        except ValueError:
            pass
        try:
            from rtpool._startup.session import begin_session

            self.session = begin_session(self)
        except Exception as error:
            complain(f"{'run' if self.run else f'RTPOOL_ACTIVATE={self.mode}'}: not activated: {error}")

    def end(self):
        """The last of what is called at exit."""
        try:
            if self.session is not None:
                self.session.end()
            elif self.run is not None and os.getpid() == self.pid:
                self.tell_without_numpy()
        except Exception as error:
            complain(f"no summary: {error}")

    def tell_without_numpy(self):
        """The summary of a program that never imported NumPy, for which neither is imported now."""
        import glob
        import json

        options = json.loads(self.run)
        seconds, faults = time.monotonic() - self.begun, self.faults()
        told = {"seconds": seconds, "minor_faults": faults[0], "major_faults": faults[1], "pool": None}
        lines = [
            f"rtpool: {seconds:.3f} s, {faults[0]:,} minor and {faults[1]:,} major faults",
            "  arrays      none: the program did not import NumPy",
        ]
        if options["summary"] and glob.glob(glob.escape(options["summary"]) + ".*.*"):
            from rtpool._startup.session import add_children

            add_children(options, told, lines)
        tell(options, told, lines, self.stderr)

    def faults(self):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_minflt - self.faults_before[0], usage.ru_majflt - self.faults_before[1]


def tell(options, summary, lines, stderr):
    """Write a summary as the options of `run` say: as JSON to a file or standard error, as text to standard error.

    `stderr` is what `file_behind` said of standard error at the start: what the program has put in its place since is
    not written to.
    """
    import json

    try:
        sys.stdout.flush()
    except Exception:
        pass  # closed, or nobody reads: Python itself says so when it ends
    text = ""
    if options["json"] == "-":
        text = json.dumps(summary) + "\n"
    elif options["json"]:
        with open(options["json"], "w", encoding="utf-8") as file:
            json.dump(summary, file, indent=1)
    if not options["quiet"] and options["json"] != "-":
        text = "\n".join(lines) + "\n"
    if text and stderr is not None and file_behind(2) == stderr:
        os.write(2, text.encode())


def file_behind(descriptor):
    """Which file a descriptor stands for; None for a closed one."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Finder:
    """Finds NumPy as the finders behind it do, and has its import watched."""

    def __init__(self, then):
        self.then = then

    def find_spec(self, name, path=None, target=None):
        if name != "numpy" or path is not None:
            return None
        try:
            for finder in sys.meta_path:
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec = find and find(name, path, target)
                if spec is not None:
                    return watch(spec, self.then)
        except Exception:
            pass  # the finder it came from is asked again, by the import system
        return None


def watch(spec, then):
    """Call `then` when the import of this spec's module is over and the module there."""
    plain = type(spec)

    def get(self):
        return self.__dict__.get("_initializing", False)

    def change(self, value):
        self.__dict__["_initializing"] = value
        if not value and self.name in sys.modules:
            self.__class__ = plain
            then()

    watched = type(plain.__name__, (plain,), {"__module__": plain.__module__, "_initializing": property(get, change)})
    try:
        spec.__class__ = watched
    except TypeError:
        complain(f"not activated: {plain.__name__} of {spec.name} cannot be watched")
    return spec


def complain(text):
    """Say it in one line where there is somebody to say it to."""
    try:
        sys.stderr.write(f"rtpool: {text}\n")
    except Exception:
        pass


def begin():
    """Have this process activated as RTPOOL_ACTIVATE says, at the moment NumPy is first imported."""
    global started
    try:
        mode = os.environ.get("RTPOOL_ACTIVATE", "0")
        if mode in ("", "0") or started is not None:
            return
        run = os.environ.pop("RTPOOL_RUN", None)
        if run is not None:
            _restore_environment()
        if mode not in MODES:
            complain(f"RTPOOL_ACTIVATE={mode!r} is none of 1, arrays, 0: not activated")
            return
        started = Start(mode, run)
        if run is not None or "RTPOOL_SUMMARY" in os.environ:
            # What is registered first is called last.
            import atexit

            atexit.register(started.end)
        started.finder = Finder(started.numpy_is_there)
        if "numpy" in sys.modules:
            started.numpy_is_there()
        else:
            sys.meta_path.insert(0, started.finder)
    except Exception as error:
        complain(f"not activated: {error}")


def _restore_environment():
    """`run` sets variables for this process alone; the program finds those the user has set."""
    before = os.environ.pop("RTPOOL_RUN_BEFORE", None)
    if before is None:
        os.environ.pop("RTPOOL_ACTIVATE", None)
    else:
        os.environ["RTPOOL_ACTIVATE"] = before
