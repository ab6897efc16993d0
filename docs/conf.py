"""Sphinx: how the documentation is built. `make docs`."""

import importlib.metadata
import importlib.util
import re
from typing import Any

import jax
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "organics"
author = "the organics authors"
release = importlib.metadata.version("organics")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
]
html_theme = "furo"
html_math_renderer = "mathml"
html_show_copyright = False
html_title = "organics"
html_static_path: list[str] = []
exclude_patterns = ["tutorials", "gallery", "auto_*/*.ipynb", "auto_*/*.py"]
default_role = "code"  # as docstrings are written
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
nitpicky = True
suppress_warnings = ["config.cache"]

autodoc_default_options = {"members": True, "imported-members": True, "member-order": "bysource"}
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
add_module_names = False


def _fresh(gallery_conf: dict[str, Any], name: str) -> None:
    """Begin each program with JAX's default types."""
    del gallery_conf, name
    jax.config.update("jax_enable_x64", False)


# without PyTorch, its tutorial is shown but not run, its reference is left out, and both say so
_WITH_TORCH = importlib.util.find_spec("torch") is not None
if not _WITH_TORCH:
    tags.add("without_torch")  # noqa: F821 - given by Sphinx

sphinx_gallery_conf = {
    "examples_dirs": ["tutorials", "gallery"],
    "gallery_dirs": ["auto_tutorials", "auto_gallery"],
    "filename_pattern": r"\.py$" if _WITH_TORCH else r"(?<!/pytorch)\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "min_reported_time": 1,
    "remove_config_comments": True,
    "reset_modules": ("matplotlib", _fresh),
    "show_memory": False,
}

_ELSEWHERE = {
    "../README.md": "index.md",
    "../results/README.md": "measurements.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changes.md",
}


def _with_links_inside(app: Any, name: str, source: list[str]) -> None:
    """Point links to files beside the folder to the pages that include them."""
    del app
    up = "../" * name.count("/")
    for path, page in _ELSEWHERE.items():
        source[0] = source[0].replace(f"]({up}{path}", f"]({up}{page}")


def _unless_installed(app: Any, name: str, source: list[str]) -> None:
    """Say why there is no reference of PyTorch's layers, which Sphinx would have to import."""
    del app
    if name == "reference/torch" and not _WITH_TORCH:
        before, _ = source[0].split("```", 1)
        source[0] = before + (
            "PyTorch was not installed where this page was made: `help(organics.torch)` shows what "
            "it would."
        )


_LIST = re.compile(r"(?m)^(Arguments|Attributes|Returns|Raises)\n((?:    .*\n?|\n)+)")
_FORMULA = re.compile(r"\n\n((?:    .+\n)+)")  # what is left of indented lines
_NAMED = re.compile(r"    ([\w, ]+): +(.*)")


def _as_lists(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Write the lists of arguments and errors in docstrings as lists."""
    del app, what, name, obj, options

    def as_list(found: re.Match[str]) -> str:
        items = [f"**{found[1]}**", ""]
        for line in found[2].splitlines():
            if line.startswith("     ") or not line:
                items.append(f"  {line.strip()}")
            elif named := _NAMED.fullmatch(line):
                items.append(f"* ``{named[1]}``: {named[2]}")
            else:
                items.append(f"* {line.strip()}")
        return "\n".join([*items, "", ""])

    text = _LIST.sub(as_list, "\n".join([*lines, ""]))
    lines[:] = _FORMULA.sub(r"\n\n::\n\n\1", text).splitlines()


def _without_fields(
    app: Any, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the fields of named tuples: the lists of attributes describe them."""
    del app, what, name, skip, options
    return True if type(obj).__name__ == "_tuplegetter" else None


def _math(self: Any, node: Any) -> None:
    """Write a formula as MathML, which browsers show without a network."""
    block = isinstance(node, nodes.math_block)
    self.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Register the changes of texts, and formulas."""
    app.connect("source-read", _with_links_inside)
    app.connect("source-read", _unless_installed)
    app.connect("autodoc-process-docstring", _as_lists)
    app.connect("autodoc-skip-member", _without_fields)
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
