"""Sphinx configuration; `python3 docs/build.py` builds."""

import sys
from pathlib import Path

import rtpool

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "rtpool"
author = "the rtpool developers"
release = version = rtpool.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "rtpool_reference",  # _ext: what is read from the program itself
    "rtpool_results",  # _ext: tables, plots and figures, from bench/results
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_ext"]
add_module_names = False
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types in words
python_maximum_signature_line_length = 80
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = f"rtpool {release}"
html_static_path = ["_static"]
html_show_sourcelink = False
html_sidebars = {"index": []}  # the home page has the whole width
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
