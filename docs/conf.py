"""How Sphinx builds the documentation: `nox -s docs`."""

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import mmmedia
from mmmedia import envs

project = "mmmedia"
author = copyright = "the mmmedia developers"
version = release = mmmedia.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"mmmedia {version}"

default_role = "code"  # docstrings write names as people do in Markdown
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
copybutton_prompt_text = ">>> |\\$ "
copybutton_prompt_is_regexp = True

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_merge_streams = True


class SettingsTable(Directive):
    """The table of all settings, from the code that reads them."""

    def run(self) -> list[nodes.Node]:
        rows = [["variable", "default", "expected", "meaning"]]
        for setting in envs.SETTINGS.values():
            default = int(setting.default) if isinstance(setting.default, bool) else setting.default
            rows.append([setting.name, str(default) or "empty", setting.expected, setting.meaning])
        table = nodes.table(classes=["settings"])
        group = nodes.tgroup(cols=len(rows[0]))
        table += group
        for width in (36, 14, 18, 40):
            group += nodes.colspec(colwidth=width)
        head, body = nodes.thead(), nodes.tbody()
        group += [head, body]
        for number, texts in enumerate(rows):
            row = nodes.row()
            (body if number else head).append(row)
            for column, text in enumerate(texts):
                is_code = number > 0 and (column == 0 or (column == 1 and text != "empty"))
                content = nodes.literal(text=text) if is_code else nodes.Text(text)
                row += nodes.entry("", nodes.paragraph("", "", content))
        return [table]


def setup(app: Sphinx) -> None:
    app.add_directive("settings-table", SettingsTable)
