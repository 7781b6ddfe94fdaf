"""`mmmedia config`: all settings, what they are, and what says so."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from mmmedia import envs
from mmmedia.cli.failures import complain
from mmmedia.cli.options import AsJSON, AsJSONLines
from mmmedia.cli.tables import print_json, print_json_lines, show
from mmmedia.cli.words import one_line
from mmmedia.errors import InvalidSettingError

_USERINFO = re.compile(r"(?<=//)[^/@\s,]*@")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def config(
    changed: Annotated[bool, typer.Option("--changed", help="Only what the environment sets.")] = False,
    as_json: AsJSON = False,
    as_lines: AsJSONLines = False,
) -> None:
    """Print every setting, its value, and whether that is the default or which variable says so.

    Of proxies, the passwords are left out. The exit status is 2 if a variable can't be read.
    """
    rows = [row for row in _settings(os.environ) if row["from"] != "default" or not changed]
    if as_json:
        print_json(rows)
    elif as_lines:
        print_json_lines(rows)
    else:
        show(
            [(row["name"], _shown(row["value"]), row["from"], row["meaning"]) for row in rows],
            ("setting", "value", "from", "meaning"),
            styles={1: "bold", 3: "dim"},
        )
    for name in _unknown(os.environ):
        near = difflib.get_close_matches(name, _variables(), 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        typer.echo(f"mmmedia: {one_line(name)} is no setting{hint}", err=True)
    wrong = [setting for setting in envs.SETTINGS.values() if _problem(setting) is not None]
    for setting in wrong:
        complain(_problem(setting) or AssertionError(setting))
    if wrong:
        raise typer.Exit(2)


def _settings(environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each setting, and for the proxies that are set."""
    for setting in envs.SETTINGS.values():
        given = (name for name in setting.variables if environment.get(name, "").strip())
        origin = next(given, "default")
        value = environment[origin] if _problem(setting) else setting.read()
        if isinstance(value, str):
            value = _USERINFO.sub("…@", one_line(value))
        yield {
            "name": setting.name if setting.name.startswith("MMMEDIA_") else setting.variables[0],
            "value": value,
            "default": setting.default,
            "from": origin,
            "meaning": setting.meaning,
        }
    for name in _PROXIES:
        for variable in (name, name.upper()):
            if variable != "HTTP_PROXY" and environment.get(variable):
                value = _USERINFO.sub("…@", one_line(environment[variable]))
                meaning = "hosts that no proxy is asked for" if name == "no_proxy" else "where requests go"
                row = {"name": variable, "value": value, "default": "", "from": variable}
                yield {**row, "meaning": meaning}


def _problem(setting: envs.Setting) -> InvalidSettingError | None:
    """Return why a setting can't be read, or None."""
    try:
        setting.read()
    except InvalidSettingError as error:
        return error
    return None


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _variables() -> list[str]:
    return [variable for setting in envs.SETTINGS.values() for variable in setting.variables]


def _unknown(environment: Mapping[str, str]) -> list[str]:
    """Return the variables with our prefix that set nothing."""
    known = set(_variables())
    return sorted(name for name in environment if name.startswith("MMMEDIA_") and name not in known)
