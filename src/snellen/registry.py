"""Build models, data sets, protocols and metrics from names of the form ``scheme:rest?key=value``.

Each built-in is one file of its package and registers itself there. Other packages add theirs through the
entry-point groups ``snellen.models``, ``snellen.datasets``, ``snellen.protocols`` and ``snellen.metrics``;
an entry point names a module that registers something, or a factory.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import threading
import traceback
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote, unquote

from snellen.errors import BadOption, UnknownName, did_you_mean

__all__ = ["Registration", "Registry", "convert", "discover", "parse_name", "with_option"]

T = TypeVar("T")
Factory = Callable[..., Any]
#: Options begin at the first "?" followed by a key and "="; any other "?" belongs to the text.
OPTIONS = r"\?(?=[A-Za-z_]\w*(?:\.[\w-]+)?=)"


def parse_name(name: str) -> tuple[str, str, dict[str, str]]:
    """Split a name into scheme, rest and options (only options are percent-decoded).

    >>> parse_name("folder:./photos?level=leaf&split=test")
    ('folder', './photos', {'level': 'leaf', 'split': 'test'})

    Raises:
        BadOption: an option without ``=``.
    """
    head, *more = re.split(OPTIONS, name, maxsplit=1)
    tail = more[0] if more else ""
    options = {}
    for item in filter(None, tail.split("&")):
        key, equals, value = item.partition("=")
        if not equals:
            raise BadOption(f"{name!r}: option {item!r} has no value; write {item}=VALUE.")
        options[unquote(key)] = unquote(value)
    scheme, _, rest = head.partition(":")
    return scheme, rest, options


def with_option(name: str, key: str, value: str) -> str:
    """Return a name with one more option, which replaces an earlier one of this key.

    >>> with_option("folder:./photos", "degrade", "blur:4")
    'folder:./photos?degrade=blur:4'
    >>> with_option("folder:./photos?split=test", "degrade", "blur:4")
    'folder:./photos?split=test&degrade=blur:4'
    """
    joined = "&" if re.search(OPTIONS, name) else "?"
    return f"{name}{joined}{quote(key)}={quote(value, safe=':,/')}"


@dataclass(frozen=True)
class Registration:
    """A registered scheme."""

    scheme: str
    factory: Factory
    example: str
    listed: bool = True  # among the schemes; benchmarks have their own list
    #: A keyword of the factory that takes a dataclass, whose fields become options too.
    bundle: tuple[str, type] | None = None
    #: Options that all schemes have, which a dataclass inherits as fields.
    common: frozenset[str] = frozenset()

    @property
    def summary(self) -> str:
        """The first line of the factory's docstring."""
        return (inspect.getdoc(self.factory) or "").partition("\n")[0]

    @property
    def explained(self) -> str:
        """What the factory's docstring says of its options, in one paragraph; empty if nothing."""
        text = inspect.cleandoc(self.factory.__doc__ or "")
        after = re.search(r"Options: ((?:.+\n?)+)", text)
        return " ".join(after[1].split()).replace("``", "") if after else ""

    def allowed(self, option: str) -> tuple[str, ...]:
        """Return the values that an option accepts, if they are few."""
        hint = self.hints.get(option)
        for part in (hint, *typing.get_args(hint)):
            if typing.get_origin(part) is Literal:
                return tuple(map(str, typing.get_args(part)))
        return ("true", "false") if hint is bool else ()

    @cached_property
    def options(self) -> dict[str, inspect.Parameter]:
        """The factory's keyword parameters, and the fields of its bundle."""
        parameters = inspect.signature(self.factory).parameters.values()
        shared = self.common if is_dataclass(self.factory) else frozenset()
        own = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in shared}
        if self.bundle is None:
            return own
        name, kind = self.bundle
        bundled = {
            f.name: inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f))
            for f in fields(kind)
        }
        return bundled | {key: value for key, value in own.items() if key != name}

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The types of the options (other annotations may name types that are not imported)."""
        if is_dataclass(self.factory):
            return typing.get_type_hints(self.factory)
        function: Any = self.factory.__init__ if inspect.isclass(self.factory) else self.factory
        annotations = {k: v for k, v in function.__annotations__.items() if k in self.options}
        hints = typing.get_type_hints(
            types.SimpleNamespace(__annotations__=annotations), function.__globals__
        )
        return hints if self.bundle is None else {**typing.get_type_hints(self.bundle[1]), **hints}

    def make(self, *rest: Any, **values: Any) -> Any:
        """Call the factory."""
        if self.bundle is None:
            return self.factory(*rest, **values)
        name, kind = self.bundle
        bundled = {f.name: values.pop(f.name) for f in fields(kind) if f.name in values}
        return self.factory(*rest, **{name: kind(**bundled)}, **values)


def discover(package: str) -> Iterator[tuple[str, Any]]:
    """Import the modules of a package, which register their contents, and load the plug-ins of the
    entry-point group with the same name; return them by name.
    """
    for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        import_module(module.name)
    for point in entry_points(group=package):
        try:
            loaded = point.load()
        except Exception as error:  # of any type: it is third-party code
            *_, last = traceback.extract_tb(error.__traceback__)
            where = f"{last.filename}, line {last.lineno}"
            warnings.warn(
                f"The plug-in {point.name!r} of {package} cannot be loaded: {error} ({where})", stacklevel=3
            )
            continue
        yield point.name, loaded


class Registry(Generic[T]):
    """The schemes of one kind of object.

    Args:
        sort: the kind, in messages ("model").
        package: its modules register the built-ins; also the entry-point group of plug-ins.
        takes_rest: whether names continue after their scheme (``folder:PATH``).
        bare: the scheme to suggest for a name that is a path or ORG/NAME.
        finish: applied to every object that is made; its keywords are options of every scheme.
    """

    def __init__(
        self,
        sort: str,
        package: str,
        *,
        takes_rest: bool = True,
        bare: str = "",
        finish: Callable[..., T] | None = None,
        suggest: Callable[[str], list[str]] | None = None,
    ) -> None:
        self.sort, self.package, self.takes_rest, self.bare = sort, package, takes_rest, bare
        self.suggest = suggest
        self.finish = None if finish is None else Registration("", finish, "")
        self._entries: dict[str, Registration] = {}
        self._discovered = False
        self._lock = threading.RLock()

    def register(
        self, scheme: str, *, example: str = "", listed: bool = True, bundle: tuple[str, type] | None = None
    ) -> Callable[[Factory], Factory]:
        """Decorate a factory: ``factory([rest,] *, option=default, …)``.

        Args:
            bundle: a keyword of the factory that takes a dataclass, whose fields become options too.
        """

        def keep(factory: Factory) -> Factory:
            common = frozenset(self.finish.options) if self.finish is not None else frozenset[str]()
            self._entries[scheme] = Registration(scheme, factory, example or scheme, listed, bundle, common)
            return factory

        return keep

    @property
    def entries(self) -> dict[str, Registration]:
        """All schemes by name, built-ins and plug-ins."""
        with self._lock:  # other threads wait until all are there
            if not self._discovered:
                self._discovered = True  # first, since what is discovered may ask
                for name, loaded in discover(self.package):
                    if callable(loaded) and name not in self._entries:
                        self.register(name)(loaded)
            return dict(sorted(self._entries.items()))

    @contextmanager
    def temporarily(self) -> Iterator[None]:
        """Forget at the end what is registered meanwhile, as tests do."""
        before = self.entries
        try:
            yield
        finally:
            self._entries = before

    def _more(self, known: Mapping[str, Registration]) -> str:
        rest = sum(not entry.listed for entry in known.values())
        return f", and {rest} benchmarks" if rest else ""

    def make(self, name: str, options: Mapping[str, Any] | None = None, **context: Any) -> T:
        """Build the object that a name describes.

        Args:
            name: ``scheme:rest?key=value&…``
            options: further options; those in the name override them.
            context: defaults for options of these names.

        Raises:
            UnknownName: no such scheme.
            BadOption: an option that the scheme does not have, or a value that it does not accept.
        """
        scheme, rest, own = parse_name(name)
        known = self.entries
        if scheme not in known or (rest and not self.takes_rest):
            meant = self.suggest(name) if self.suggest is not None and scheme not in known else []
            hint = f" Did you mean {' or '.join(map(repr, meant))}?" if meant else did_you_mean(scheme, known)
            if not meant and self.bare and scheme not in known and ("/" in name or Path(name).exists()):
                hint = f" Did you mean {f'{self.bare}:{name}'!r}?"
            raise UnknownName(
                f"Unknown {self.sort} {name!r}.{hint} "
                f"Known: {', '.join(e.example for e in known.values() if e.listed)}{self._more(known)}. "
                f"See: snellen ls {self.sort.replace(' ', '')}s"
            )
        entry = known[scheme]
        given: dict[str, Any] = _gathered({**(options or {}), **own}, entry)
        allowed = self.options_of(entry)
        for key in given:
            if key not in allowed:
                raise BadOption(
                    f"The {self.sort} {scheme!r} has no option {key!r}."
                    f"{did_you_mean(key, allowed)} Its options: "
                    f"{', '.join(sorted(allowed)) or 'none'}. To set an option for one of several "
                    f"{self.sort}s, add it to the name: {scheme}?option=value"
                )
        values = {
            k: convert(f"{scheme}?{k}", v, entry.hints[k]) for k, v in given.items() if k in entry.options
        }
        values |= {k: v for k, v in context.items() if k in entry.options and k not in values}
        try:
            made: T = entry.make(rest, **values) if self.takes_rest else entry.make(**values)
        except ValueError as error:  # plug-ins may refuse what they are given with it
            if (entry.factory.__module__ or "").startswith("snellen."):
                raise
            raise BadOption(f"The {self.sort} {name!r}: {error}") from error
        if self.finish is None:
            return made
        more = {k: v for k, v in given.items() if k not in entry.options}
        finished: T = self.finish.make(
            made, **{k: convert(f"{scheme}?{k}", v, self.finish.hints[k]) for k, v in more.items()}
        )
        return finished

    def options_of(self, entry: Registration) -> dict[str, inspect.Parameter]:
        """Return all options of a scheme by name: its own, and those that all have."""
        return {**(self.finish.options if self.finish is not None else {}), **entry.options}


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _gathered(given: Mapping[str, Any], entry: Registration) -> dict[str, Any]:
    """Return options with those of a dotted name as one: ``header.NAME=VALUE`` for an option that is a
    mapping.
    """
    found: dict[str, Any] = {}
    for key, value in given.items():
        name, dot, part = key.partition(".")
        if dot and typing.get_origin(entry.hints.get(name)) is Mapping:
            found[name] = {**found.get(name, {}), part: str(value)}
        else:
            found[key] = value
    return found


def convert(where: str, value: Any, hint: Any) -> Any:
    """Convert an option's value to its declared type: bool, int, float, str, Literal, tuple of strings
    (comma-separated), or an optional one of these.

    Raises:
        BadOption: the value does not fit.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        none = isinstance(value, str) and value.lower() == "none" and str not in arguments
        if value is None or none:
            return None
        return convert(where, value, next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        if value in arguments:
            return value
        raise _refusal(where, value, ", ".join(map(str, arguments)))
    if origin is Mapping:
        if isinstance(value, Mapping):
            return {str(key): str(text) for key, text in value.items()}
        raise _refusal(where, value, f"{where.rpartition('?')[2]}.NAME=VALUE")
    if origin is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(part.strip() for part in parts if part.strip())
    if not isinstance(value, str):
        fits = isinstance(value, hint) or (hint is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and hint is not bool):
            raise _refusal(where, value, f"a value of type {hint.__name__}")
        return value
    if hint is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if value.lower() in words:
            return words[value.lower()]
        raise _refusal(where, value, "true or false")
    try:
        return hint(value)
    except ValueError:
        what = {int: "a whole number", float: "a number"}.get(hint, hint.__name__)
        raise _refusal(where, value, what) from None


def _refusal(where: str, value: Any, allowed: str) -> BadOption:
    return BadOption(f"{where}={value!r} is not allowed; allowed: {allowed}.")
