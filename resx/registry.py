"""Names for what can be added: a dict, a decorator, 'did you mean', and the loading of a user's plugin file.

An entry is a factory. Its keyword-only parameters are the arguments that a spec may set (`scaled:alpha=0.5`), and
their defaults are filled in, so that the same network is always written the same way. A registry that users add to
also takes other parameters with a default as arguments, so that nobody has to know about the `*`.

A plugin is a user's Python file, and its code is executed. Exactly the bytes that are hashed are executed: the file and
the files next to it that it imports, comments and all. The hash is part of a run that uses something which the plugin
registered, and of no other.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from traceback import walk_tb
from types import ModuleType, TracebackType
from typing import Any, Generic, TypeVar

from resx.spec import SpecError, did_you_mean, parse_part, with_kind

F = TypeVar("F", bound=Callable[..., Any])
IN_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}  # types of arguments


class Registry(Generic[F]):
    """Factories of one kind by name.

    kind: the word that error messages use. positional: how many arguments `create` is given; parameters with a default
    beyond these may be set, without it keyword-only ones alone. adapt: makes a factory of what is registered, where
    that need not be one.
    """

    def __init__(self, kind: str, positional: int | None = None, adapt: Callable[[F], F] = lambda entry: entry) -> None:
        self.kind = kind
        self._positional, self._adapt = positional, adapt
        self._entries: dict[str, F] = {}
        self._plugins: dict[str, str] = {}  # name -> hash of the plugin that registered it

    def register(self, name: str) -> Callable[[F], F]:
        """Decorate a factory to make it known by `name`.

        Raises ValueError where the name is taken or cannot be written in a spec, TypeError for an argument whose
        default a spec cannot hold.
        """

        def add(factory: F) -> F:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            if not isinstance(name, str) or not name.strip() or set(name) & set(":,=+@ ") or not name.isprintable():
                raise ValueError(f"{self.kind} {name!r} is no name: no spaces and none of : , = + @")
            entry = self._adapt(factory)
            for key, default in settable(entry, self._positional).items():
                if not isinstance(default, bool | int | float | str):
                    raise TypeError(
                        f"{self.kind} '{name}': its argument {key} needs a number, a text or a bool as default"
                    )
            self._entries[name] = entry
            _registered.append(name)
            if _loading:
                self._plugins[name] = _loading[-1]
            return factory

        return add

    def plugin(self, text: str | None) -> str | None:
        """Return the hash of the plugin that registered what `name:key=value` names, or None."""
        return self._plugins.get(parse_part(text)[0]) if text else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> F:
        """Return the factory of a bare name. Raises SpecError with the nearest known name."""
        if name not in self._entries:
            names = ", ".join(self._entries)
            raise SpecError(f"{self.kind}: no '{name}'{did_you_mean(name, self._entries)}; there are {names}")
        return self._entries[name]

    def summary(self, name: str) -> str:
        """Return the first line of the entry's docstring."""
        return (inspect.getdoc(self[name]) or "").partition("\n")[0]

    def arguments(self, text: str) -> tuple[str, dict[str, Any]]:
        """Split `name:key=value` into the name and every keyword argument, typed as its default and filled in.

        Raises SpecError for an unknown name or key and for a value of the wrong type.
        """
        name, given = parse_part(text)
        defaults = settable(self[name], self._positional)
        errors = [
            f"{self.kind} '{name}': no argument '{key}'{did_you_mean(key, defaults)}"
            + (f"; it takes {', '.join(defaults)}" if defaults else "; it takes none")
            for key in given
            if key not in defaults
        ]
        values = dict(defaults)
        for key in given.keys() & defaults.keys():
            try:
                values[key] = _typed(given[key], type(defaults[key]))
            except ValueError:
                kind = IN_WORDS[type(defaults[key])]
                errors.append(f"{self.kind} '{name}': {key} must be {kind}, not '{given[key]}'")
        if errors:
            raise SpecError(errors)
        return name, values

    def complete(self, text: str) -> str:
        """Return the text with every default filled in, in the order of the signature."""
        name, values = self.arguments(text)
        listed = ",".join(f"{key}={_shown(value)}" for key, value in values.items())
        return f"{name}:{listed}" if listed else name

    def create(self, text: str, *positional: Any) -> Any:
        """Call the factory that `name:key=value` names with these positional arguments."""
        name, values = self.arguments(text)
        return self[name](*positional, **values)

    def check(self, text: Any) -> list[str]:
        """Return what is wrong with `name:key=value`, a line each; nothing for a text that can be created."""
        try:
            self.arguments(str(text))
        except SpecError as error:
            return error.errors
        return []


@cache
def settable(factory: Callable[..., Any], positional: int | None = None) -> dict[str, Any]:
    """Return the parameters of a factory that a spec may set, with their defaults.

    They are the keyword-only ones and, after `positional` others, those with a default.
    """
    return {
        item.name: item.default
        for place, item in enumerate(inspect.signature(factory).parameters.values())
        if item.kind is item.KEYWORD_ONLY
        or (positional is not None and place >= positional and item.default is not item.empty)
    }


def _typed(text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    value = kind(text)
    if kind is float and value - value != 0:  # nan and inf are no settings
        raise ValueError(text)
    return value or kind()  # not -0.0, which is another text


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_registered: list[str] = []  # in all registries, by whatever file


def state() -> int:
    """Return a number that changes whenever anything is registered, for caches whose keys are names."""
    return len(_registered)


_loading: list[str] = []  # hash of the plugin that is being executed
_loaded: dict[str, Path] = {}  # hash -> file


@dataclass(frozen=True)
class Plugin:
    """A user's file as it was read, with those next to it that it imports, so it can be loaded on another machine.

    helpers: name, file and source of each module.
    """

    path: Path
    source: bytes
    helpers: tuple[tuple[str, Path, bytes], ...]

    @property
    def digest(self) -> str:
        """The hash that specs hold."""
        hashed = hashlib.sha256(self.source)
        for name, _, source in self.helpers:
            hashed.update(b"\0" + name.encode() + b"\0" + source)
        return hashed.hexdigest()[:16]


def read_plugin(path: Path) -> Plugin:
    """Read a user's file and those next to it that it imports. Raises SpecError that names the file."""
    source = _read_source(path, path)
    helpers = _imported(path, source)
    return Plugin(path, source, tuple((name, *helpers[name]) for name in sorted(helpers)))


def load_plugins(plugins: Path | Sequence[Path | Plugin]) -> None:
    """Load users' files, as `load_plugin` does."""
    for plugin in [plugins] if isinstance(plugins, Path) else plugins:
        load_plugin(plugin)


def load_plugin(plugin: Path | Plugin) -> str:
    """Execute a user's file, whose decorators register what it adds, and return its digest.

    Loading the same source twice does nothing. Raises SpecError that names the file where it does not import.
    """
    plugin = plugin if isinstance(plugin, Plugin) else read_plugin(Path(plugin))
    path, source, digest = plugin.path, plugin.source, plugin.digest
    helpers = {name: (file, text) for name, file, text in plugin.helpers}
    name = f"resx_plugin_{digest}"
    if name in sys.modules:
        return digest
    for helper, (_, text) in helpers.items():
        if getattr(sys.modules.get(helper), "__resx_source__", text) != text:
            raise SpecError(f"plugin {path}: another module named {helper} is loaded already; rename one of them")
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    finder = _Helpers(helpers)
    sys.meta_path.insert(0, finder)
    _loading.append(digest)
    before = set(sys.modules)
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
        _refuse_unseen(path, sys.modules.keys() - before)
    except (Exception, SystemExit) as error:  # a user's file may fail in any way; the user needs its name and why
        del sys.modules[name]
        sys.meta_path.remove(finder)
        raise SpecError(f"plugin {path}: does not import ({with_kind(error)})") from error
    finally:
        _loading.pop()
    _loaded[digest] = path
    return digest


def _refuse_unseen(path: Path, names: Iterable[str]) -> None:
    """Raise ImportError where a module that a plugin loaded is the user's and was not hashed with it."""
    for name in names:
        module, top = sys.modules[name], name.partition(".")[0]
        file = Path(getattr(module, "__file__", None) or "/").resolve()
        is_installed = top in sys.stdlib_module_names or top == "resx" or "site-packages" in file.parts
        if path.parent.resolve() in file.parents and not hasattr(module, "__resx_source__") and not is_installed:
            del sys.modules[name]
            raise ImportError(
                f"{file} would be no part of its runs; put it next to the plugin and write `import {name}`"
            )


def used_plugins(digests: Iterable[str | None]) -> str | None:
    """Return the hash that a spec holds for the plugins it uses, one over all where there are several."""
    distinct = sorted({digest for digest in digests if digest})
    if len(distinct) < 2:
        return distinct[0] if distinct else None
    return hashlib.sha256(" ".join(distinct).encode()).hexdigest()[:16]


def failed_plugin(traceback: TracebackType | None) -> Path | None:
    """Return the file of the plugin whose code an exception came through, or None."""
    files = {str(path): path for path in _loaded.values()}
    names = [frame.f_code.co_filename for frame, _ in walk_tb(traceback)]
    return next((files[name] for name in reversed(names) if name in files), None)


def _read_source(file: Path, plugin: Path) -> bytes:
    if os.path.exists(file) and not os.path.isfile(file):  # a pipe would be waited for
        raise SpecError(f"plugin {plugin}: {file} is not a file")
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"plugin {plugin}: cannot be read ({reason})") from error


def _imported(path: Path, source: bytes) -> dict[str, tuple[Path, bytes]]:
    """Return the modules next to a plugin that it imports, and those that they import: file and source of each."""
    modules: dict[str, tuple[Path, bytes]] = {}
    waiting = [("", source)]
    while waiting:
        for name in _imports(*waiting.pop()):
            parts = name.split(".")
            for length in range(1, len(parts) + 1):  # a package before what is in it
                module = ".".join(parts[:length])
                file = _file_of(path.parent, module)
                if file is not None and module not in modules and _is_helper(parts[0], path.parent):
                    modules[module] = (file, _read_source(file, path) if file.exists() else b"")
                    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
                    waiting.append((package, modules[module][1]))
    return modules


def _imports(package: str, source: bytes) -> list[str]:
    """Return the names of what a source imports anywhere, functions included; none where it is not Python.

    package: that it is in, where `from . import x` looks; empty for a plugin itself, which is in none.
    """
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):
        return []
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # from above the top, which Python refuses as well
                module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return names


def _file_of(folder: Path, module: str) -> Path | None:
    """Return a module's file, as Python finds it: a folder's __init__.py first, which need not be there."""
    place = folder.joinpath(*module.split("."))
    files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((file for file in files if file.is_file()), files[0] if place.is_dir() else None)


def _is_helper(name: str, folder: Path) -> bool:
    """Whether a module is the user's: not Python's, and not installed anywhere but in the plugin's folder."""
    if name in sys.stdlib_module_names or name == "resx":
        return False
    if name in sys.modules:
        return hasattr(sys.modules[name], "__resx_source__")
    spec = importlib.util.find_spec(name)
    return spec is None or spec.origin is None or folder.resolve() in Path(spec.origin).resolve().parents


class _Helpers(MetaPathFinder, Loader):
    """Finds the modules next to a plugin and executes the very bytes that were hashed, without a cache of bytecode."""

    def __init__(self, sources: Mapping[str, tuple[Path, bytes]]) -> None:
        self.sources = sources

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self.sources:
            return None
        file = self.sources[name][0]
        spec = ModuleSpec(name, self, origin=str(file), is_package=file.name == "__init__.py")
        spec.has_location = True
        return spec

    def exec_module(self, module: ModuleType) -> None:
        file, source = self.sources[module.__name__]
        module.__dict__["__resx_source__"] = source
        exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
