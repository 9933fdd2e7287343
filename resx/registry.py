"""Names for what can be added: a dict, a decorator, 'did you mean', and the loading of a user's plugin file.

An entry is a factory. Its keyword-only parameters are the arguments that a spec may set (`scaled:alpha=0.5`), and
their defaults are filled in, so that the same network is always written the same way. A registry that users add to
takes further parameters with a default as such arguments too, so that nobody has to know of the `*`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from resx.spec import SpecError, did_you_mean, parse_part

F = TypeVar("F", bound=Callable[..., Any])


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

    def register(self, name: str) -> Callable[[F], F]:
        """Decorate a factory to make it known by `name`. Raises ValueError where the name is taken."""

        def add(factory: F) -> F:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            self._entries[name] = self._adapt(factory)
            return factory

        return add

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> F:
        """Return the factory of a bare name. Raises SpecError with the nearest known name."""
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise SpecError(f"{self.kind}: no '{name}'{did_you_mean(name, self._entries)}; there are {known}")
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
                kind = type(defaults[key]).__name__
                errors.append(f"{self.kind} '{name}': {key} must be a {kind}, not '{given[key]}'")
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
    return value


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def load_plugin(path: Path) -> str:
    """Run a user's file, whose decorators register what it adds, and return the hash of its source.

    Loading the same source twice does nothing. Raises SpecError that names the file where it does not import.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise SpecError(f"plugin {path}: cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(source).hexdigest()[:16]
    name = f"resx_plugin_{digest}"
    if name in sys.modules:
        return digest
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise SpecError(f"plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:  # a user's file may fail in any way; the user needs its name and the reason
        del sys.modules[name]
        reason = str(error).partition("\n")[0]
        raise SpecError(f"plugin {path}: does not import ({type(error).__name__}: {reason})") from error
    return digest
