"""`mmmedia doctor`: what decodes here, how it is held, and what settings and environment say."""

from typing import Any

import typer

from mmmedia.cli.options import AsJSON
from mmmedia.cli.tables import print_json, show
from mmmedia.cli.words import amount, joined, one_line


def doctor(as_json: AsJSON = False) -> None:
    """Say what decodes here and in which version, how it is held, and which settings are in force.

    The exit status is 1 if something can't work as it is set.
    """
    from mmmedia.media.doctor import report

    found = report()
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["problems"]:
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    rows = []
    for name, facts in (
        ("versions", _versions(found["versions"])),
        ("codecs", _codecs(found["codecs"])),
        ("isolation", _isolation(found["isolation"])),
        ("settings", _settings(found["settings"])),
        ("cache", _cache(found["cache"])),
        ("network", _network(found["network"])),
        ("problems", [one_line(problem) for problem in found["problems"]] or ["none"]),
    ):
        rows += [(name if at == 0 else "", fact) for at, fact in enumerate(facts)]
    show(rows, styles={0: "dim"})


def _versions(found: dict[str, Any]) -> list[str]:
    first = joined(f"mmmedia {found['mmmedia']}", f"Python {found['python']}", found["system"])
    others = {
        name: value for name, value in found.items() if name not in ("mmmedia", "python", "system", "cores")
    }
    there = [f"{name} {value}" for name, value in others.items() if value]
    lacking = [name for name, value in others.items() if not value]
    return [
        joined(first, f"{found['cores']} cores"),
        joined(*there),
        f"not installed: {', '.join(lacking) or 'none'}",
    ]


def _codecs(found: dict[str, Any]) -> list[str]:
    facts = []
    if av := found["av"]:
        libraries = [f"{name} {number}" for name, number in av["libraries"].items()]
        facts += [joined("PyAV", *libraries), "  " + " ".join([*av["video"], *av["sound"]])]
    if opencv := found["opencv"]:
        facts.append(joined("OpenCV", *(f"{name} {value}" for name, value in opencv.items())))
    if soundfile := found["soundfile"]:
        facts += [joined("libsndfile", soundfile["libsndfile"]), "  " + " ".join(soundfile["formats"])]
    if pillow := found["pillow"]:
        libraries = [
            f"{name} {number}" if number else f"no {name}" for name, number in pillow["libraries"].items()
        ]
        facts += [joined("Pillow", *libraries), "  " + " ".join(pillow["formats"])]
    return facts


def _isolation(found: dict[str, Any]) -> list[str]:
    where = f"in {found['processes']} processes of its own" if found["processes"] > 0 else "in this process"
    possible = ", ".join(found["layers"]) if found["is_possible"] else "none can be started here"
    facts = [f"decoding is done {where} (MMMEDIA_DECODE_PROCESSES)", f"such a process is held by: {possible}"]
    if found["lacking"]:
        facts.append(f"this system does not give: {', '.join(found['lacking'])}")
    if found["landlock"]:
        facts.append(f"Landlock version {found['landlock']}")
    return facts


def _settings(found: dict[str, Any]) -> list[str]:
    changed = [
        f"{name} = {one_line(str(each['value']))} (by {each['set_by']})"
        for name, each in found.items()
        if each["set_by"]
    ]
    limits = [
        f"{name} = {each['value']}" for name, each in found.items() if "_MAX_" in name and not each["set_by"]
    ]
    return [*changed, *limits, f"all others as they are by default ({len(found)} in all; --json lists them)"]


def _cache(found: dict[str, Any]) -> list[str]:
    if not found["directory"]:
        return ["none (VLLM_MEDIA_CACHE)"]
    return [
        joined(
            one_line(found["directory"]),
            "writable" if found["is_writable"] else "not writable",
            f"at most {amount(found['max_bytes'])}, {amount(found['free_bytes'])} free",
            f"entries live {found['ttl_seconds'] / 3600:g} h",
        )
    ]


def _network(found: dict[str, Any]) -> list[str]:
    proxies = [f"{scheme}: {proxy}" for scheme, proxy in found["proxies"].items() if proxy]
    certificates = [f"{name}={one_line(path)}" for name, path in found["certificates"].items()]
    return [
        f"proxies: {', '.join(proxies) or 'none'}"
        + (f"; not for {one_line(found['no_proxy'])}" if found["no_proxy"] else ""),
        f"certificates: {', '.join(certificates) or 'those of the system and of certifi'}",
    ]
