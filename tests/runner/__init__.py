"""What `tests/run.py` is made of; each uses only those before it.

`outcome`: how a step came out, and what reports say of it. `commands`: commands with a log, a deadline and the tests'
environment. `builds`: the core's build folders. `environment`: Python's, with rtpool installed. `native` and `package`:
the steps, in C++ and in Python.
"""
