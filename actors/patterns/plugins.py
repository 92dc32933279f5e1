"""Finds the patterns that users bring, and adds them to Orchestra's own.

Agents perform patterns and gateways check their settings, so both load them, by the same settings: a bus
cannot carry pydantic models with validators, and a request with a wrong setting is refused before it is
queued.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from pathlib import Path
from types import ModuleType

import orchestration
from actors.patterns.settings import PatternsSettings
from actors.runtime.failures import describe_error
from orchestration.patterns import BUILT_IN, BrokenPlugin, Catalogue, NameTaken, Pattern

log = logging.getLogger(__name__)

GROUP = "orchestra.patterns"
"""The group of entry points. The value of an entry point is `module:attribute`, its name that of the
pattern."""
REASON_CHARACTERS = 400
_OURS = (str(Path(orchestration.__file__).parent), str(Path(__file__).parents[1]))
_DECORATOR = re.compile(r"@pattern\(\s*(?:name\s*=\s*)?[\"']([^\"'\n]{1,64})[\"']")


class UnusablePlugin(ValueError):
    """A plug-in can be imported, but brings no pattern."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A source of patterns. `names` are its patterns as far as they are known before it is loaded. `load` may
    raise anything."""

    names: tuple[str, ...]
    origin: str
    load: Callable[[], list[Pattern]]


def load_catalogue(settings: PatternsSettings) -> Catalogue:
    """All patterns: Orchestra's own, those of installed packages, and those at the settings' paths.

    A plug-in that cannot be used is left out; a warning and the answer to a request for it give the reason.
    """
    catalogue = with_plugins(
        BUILT_IN, chain(installed_plugins(), *(plugins_at(path) for path in settings.paths))
    )
    for broken in catalogue.broken:
        log.warning("no pattern from %s: %s", broken.origin, broken.reason)
    return catalogue


def with_plugins(catalogue: Catalogue, plugins: Iterator[Plugin]) -> Catalogue:
    """The catalogue with the patterns of the plug-ins, and with the reasons of those that cannot be used."""
    for plugin in plugins:
        try:
            found = plugin.load()
            for each in found:
                each.settings.model_json_schema()  # the list of patterns shows it
        except KeyboardInterrupt:  # Ctrl-C of the user
            raise
        except BaseException as error:  # noqa: BLE001 - it is code of others, and may raise anything
            catalogue = catalogue.without(BrokenPlugin(plugin.names, plugin.origin, _reason(error)))
            continue
        for each in found:
            try:
                catalogue = catalogue.plus(each, plugin.origin)
            except NameTaken as error:
                catalogue = catalogue.without(BrokenPlugin((each.name,), plugin.origin, str(error)))
    return catalogue


def installed_plugins() -> Iterator[Plugin]:
    """A plug-in for each entry point of the installed packages."""
    for point in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "?"
        yield Plugin((point.name,), f"package {package}", partial(_of_entry_point, point))


def plugins_at(path: Path) -> Iterator[Plugin]:
    """A plug-in for a file, or for each file in a folder whose name does not begin with `_`."""
    path = path.expanduser().absolute()
    files = sorted(path.glob("[!_]*.py")) if path.is_dir() else [path]
    if not files:
        yield Plugin((), str(path), partial(_nothing, "the folder has no .py file"))
    for file in files:
        yield Plugin(_named_in(file), str(file), partial(_of_file, file))


def _nothing(why: str) -> list[Pattern]:
    raise UnusablePlugin(why)


def _named_in(file: Path) -> tuple[str, ...]:
    """The names of the patterns in a file, which need not be valid Python."""
    try:
        found = tuple(_DECORATOR.findall(file.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        found = ()
    return found or (file.stem.replace("_", "-"),)


def _of_entry_point(point: EntryPoint) -> list[Pattern]:
    found = point.load()
    if not isinstance(found, Pattern):
        raise UnusablePlugin(f"{point.value} is a {type(found).__name__}, not a pattern: use @pattern")
    if found.name != point.name:
        raise UnusablePlugin(f"the entry point is named {point.name!r}, its pattern {found.name!r}")
    return [found]


def _of_file(file: Path) -> list[Pattern]:
    if not file.is_file():
        raise UnusablePlugin("the file does not exist")
    module = _imported(file)
    found = {id(each): each for each in vars(module).values() if isinstance(each, Pattern)}
    own = [each for each in found.values() if each.perform.__module__ == module.__name__]
    if not own:
        raise UnusablePlugin("the file has no pattern: use @pattern")
    return own


def _imported(file: Path) -> ModuleType:
    """The module of a file. Raises what the file raises."""
    name = f"orchestra_pattern_{file.stem}_{zlib.crc32(str(file).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UnusablePlugin("the name of a Python file must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where annotations are looked up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _reason(error: BaseException) -> str:
    """The error and its place in the file, in one line."""
    if isinstance(error, UnusablePlugin):
        return str(error)
    what = " ".join(describe_error(error).split())[:REASON_CHARACTERS]
    if isinstance(error, SyntaxError):  # says the place itself
        return what
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", *_OURS)) and "importlib" not in frame.filename:
            return f"{what} ({frame.filename}, line {frame.lineno})"
    return what
