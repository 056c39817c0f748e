"""IPython and Jupyter: the magics ``%rtpool`` and ``%%rtpool``. Nothing here imports IPython."""
