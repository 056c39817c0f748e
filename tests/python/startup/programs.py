"""Programs whose end, output and tracebacks must not tell how they were started."""

from __future__ import annotations

from textwrap import dedent

# name: (arguments behind the interpreter, standard input)
SCRIPTS = {
    "names": """
        import sys
        kept = {name: value for name, value in globals().items() if name not in ("sys", "kept")}
        for name, value in sorted(kept.items()):
            print(name, type(value).__name__ if name in ("__builtins__", "__loader__") else repr(value))
        print(sys.argv, repr(sys.path[0]), __name__, sys.modules["__main__"].__dict__ is globals())
    """,
    "annotated": "x: int = 1\nprint(__annotations__)\n",
    "environment": """
        import os, sys
        print({name: value for name, value in os.environ.items() if "RTPOOL" in name})
        print(sys.flags, sys.warnoptions, sys._xoptions)
    """,
    "raises": """
        def inner(x):
            return 1 / x

        def outer():
            try:
                inner(0)
            except ZeroDivisionError as error:
                raise KeyError("from the program") from error

        print("before")
        outer()
    """,
    "group": "raise BaseException('plain')\n",
    "syntax": "x = 1\nif x\n    pass\n",
    "encoding": "# -*- coding: latin-1 -*-\nprint('\\u00e9'.encode('latin-1'))\n",
    "exit_none": "import sys; sys.exit()\n",
    "exit_number": "import sys; print('here'); sys.exit(37)\n",
    "exit_text": "import sys; sys.exit('a reason')\n",
    "exit_true": "raise SystemExit(True)\n",
    "exit_large": "raise SystemExit(300)\n",
    "exit_hard": "import os; print('lost or not', flush=True); os._exit(9)\n",
    "interrupted": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor i in range(10**8): pass\n",
    "interrupted_in_a_wait": """
        import os, signal, threading, time
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(60)
    """,
    "terminated": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
    "aborted": "import os; os.abort()\n",
    "closes_stdout": "import sys; print('out'); sys.stdout.close()\n",
    "closes_stderr": "import sys; print('out'); sys.stderr.close()\n",
    "closes_descriptors": "import os; print('out', flush=True); os.close(1); os.close(2)\n",
    "own_hook": """
        import sys
        def hook(kind, error, trace):
            lines = []
            while trace is not None:
                lines.append(trace.tb_lineno)
                trace = trace.tb_next
            print("hook", kind.__name__, error, lines)
        sys.excepthook = hook
        raise ValueError("to the hook")
    """,
    "atexit": """
        import atexit, pickle, threading, time
        def function(): return 1
        def late():
            time.sleep(0.1)
            print("thread", __name__, pickle.loads(pickle.dumps(function))())
        atexit.register(lambda: print("exit", __name__, __package__, pickle.loads(pickle.dumps(function))()))
        threading.Thread(target=late).start()
        print("last line")
    """,
    "raises_at_exit": """
        import atexit
        @atexit.register
        def bad():
            raise RuntimeError("at exit")
        class Later:
            def __del__(self): print("deleted", __name__)
        kept = Later()
    """,
    "executors": """
        import concurrent.futures, threading
        def square(x): return x * x
        begun = threading.Event()
        def late():
            with concurrent.futures.ProcessPoolExecutor(1) as executor:
                results = executor.map(square, [3])
                begun.set()
                print("late", list(results))
        if __name__ == "__main__":
            unclosed = concurrent.futures.ThreadPoolExecutor(2)
            print(unclosed.submit(square, 5).result())
            threading.Thread(target=late).start()
            begun.wait()  # once the end has begun, Python takes no new executors: which is first is chance
    """,
    "processes": """
        import multiprocessing
        def work(x): return x + 1, __name__
        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print(method, pool.map(work, [1, 2]))
    """,
    "dataclass": """
        import dataclasses, inspect, sys
        @dataclasses.dataclass
        class Thing:
            x: "int" = 1
        print(Thing(), inspect.getsource(Thing).splitlines()[0], inspect.getfile(Thing) == __file__)
    """,
    "changes_folder": """
        import os
        os.chdir(os.sep)
        print(os.path.isabs(__file__), os.path.exists(__file__))
    """,
    "warns": "import warnings\ndef f(): warnings.warn('a warning', stacklevel=2)\nf()\n",
    "unraisable": "class Bad:\n    def __del__(self): raise ValueError('in del')\nBad()\n",
    "thread_raises": "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='t'); t.start(); t.join()\n",
    "prefork": """
        import os, sys
        workers = []
        for number in range(3):
            pid = os.fork()
            if pid == 0:
                sys.exit(number + 10)
            workers.append(pid)
        print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers])
    """,
    "server": """
        import threading, urllib.request
        from wsgiref.simple_server import WSGIRequestHandler, make_server
        class Quiet(WSGIRequestHandler):
            def log_message(self, *arguments): pass
        def application(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["PATH_INFO"].encode(), __name__.encode()]
        with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            print(urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/a/path").read())
            server.shutdown()
    """,
}

# Only where the start-up file is in force: run in this very process they see the difference.
SCRIPTS_BY_START_UP = {
    "modules": "import sys; print(sorted(sys.modules.keys() - {'_rtpool_start', 'atexit', 'resource'}))\n",
    "finders": "import sys; import numpy\nprint(sys.meta_path, type(numpy.__spec__))\n",
    "warns_above": "import warnings; warnings.warn('top', stacklevel=5)\n",
    "stack": "import sys, traceback\ntraceback.print_stack()\nprint(sys._getframe().f_back)\n",
    "depth": """
        def f(n):
            try:
                return f(n + 1)
            except RecursionError:
                return n
        print(f(0))
    """,
    "no_such_module": "import numpy_that_is_not_there\n",
}


def source(text: str) -> str:
    return dedent(text).lstrip("\n")
