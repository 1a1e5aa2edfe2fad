"""How Sphinx builds this site: MyST pages, autodoc from numpydoc docstrings, furo."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import minissl  # noqa: E402

project = "minissl"
author = "The minissl authors"
project_copyright = author
release = version = minissl.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "sphinx.ext.viewcode",
    "myst_parser",
    "command_help",
    "plain_docstrings",
    "prototxt_lexer",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # as lists, beside the parameters
napoleon_use_param = False  # types are words such as "pairs", not names to link
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"minissl {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {"light_css_variables": {"code-font-size": "80%"}}
