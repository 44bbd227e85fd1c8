"""YAML read by tables, every fault named with its line.

An :class:`Item` is a value of a file with the place it has there. Readers take an item and
return what it means; what is wrong is an InvalidRequest that :meth:`Item.fault` words:
``cluster.yaml:12: hosts[2].gpus.count must be a number from 0 to 1000, got -1``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from nimbus_hub.errors import InvalidRequest

__all__ = ["Field", "Item", "Keys", "Reader", "parse_yaml", "read_text"]

T = TypeVar("T")

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
_TAGS = "tag:yaml.org,2002:"
_LONGEST_QUOTE = 60
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast where PyYAML was built with libyaml."""


@dataclass(frozen=True, slots=True)
class Item:
    """A value in a file: ``key`` is its path there, ``node`` what YAML found."""

    path: Path
    key: str
    node: yaml.Node

    @property
    def is_null(self) -> bool:
        """Tell whether nothing is written there."""
        return self.node.tag == f"{_TAGS}null"

    @property
    def is_mapping(self) -> bool:
        """Tell whether there are keys."""
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        """Tell whether there are items."""
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def scalar(self) -> str | int | float:
        """Return the number or the text as written: ``no`` and ``007`` are texts too.

        Raises InvalidRequest for anything else.
        """
        if not isinstance(self.node, yaml.ScalarNode) or self.is_null:
            raise self.fault(f"must be a text or a number, got {self.quote}")
        text = str(self.node.value)
        is_plain = self.node.tag in (f"{_TAGS}int", f"{_TAGS}float")
        if not is_plain or not _NUMBER.fullmatch(text):
            return text.strip()
        return float(text) if "." in text else int(text)

    @property
    def text(self) -> str:
        """Return what is written there; raise InvalidRequest for none."""
        found = str(self.scalar)
        if not found:
            raise self.fault("must be a text, got ''")
        return found

    @property
    def quote(self) -> str:
        """Return the value as an error names it."""
        if self.is_mapping or self.is_list:
            return "a mapping" if self.is_mapping else "a list"
        if self.is_null:
            return "nothing"
        text = str(self.node.value)
        shown = text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."
        return repr(shown) if self.node.tag == f"{_TAGS}str" else shown

    @property
    def line(self) -> int:
        """Return the line it begins in."""
        return int(self.node.start_mark.line) + 1

    def fault(self, sentence: str) -> InvalidRequest:
        """Return the error that says where and what: ``FILE:LINE: KEY SENTENCE``."""
        return InvalidRequest(f"{self.path}:{self.line}: {self.key or 'the file'} {sentence}")

    def by(self, read: Callable[[Any], T]) -> T:
        """Return what a reader of texts and numbers makes of this."""
        value = self.scalar
        try:
            return read(value)
        except InvalidRequest as error:
            # "memory must be ..." is about this key, whatever the reader calls it.
            _, must, rest = error.message.partition(" must ")
            raise self.fault(f"must {rest}" if must else f"is wrong: {error.message}") from None

    def items(self) -> list[Item]:
        """Return the items of a list, none for nothing; raise InvalidRequest for no list."""
        if self.is_null:
            return []
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.fault(f"must be a list, got {self.quote}")
        return [
            Item(self.path, f"{self.key}[{place}]", node)
            for place, node in enumerate(self.node.value)
        ]

    def entries(self) -> dict[str, Item]:
        """Return the values of a mapping by key, none for nothing.

        Raises InvalidRequest for no mapping and for a key that is given twice. Of what
        ``<<`` merges, only keys that are not given beside it count.
        """
        if self.is_null:
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            raise self.fault(f"must be a mapping, got {self.quote}")
        merged: dict[str, Item] = {}
        own: dict[str, Item] = {}
        for key, value in self.node.value:
            if key.tag == f"{_TAGS}merge":
                merged = self._merged(value) | merged
                continue
            name = self._name(key)
            if name in own:
                raise self._below(name, key).fault(
                    f"is given twice, first in line {own[name].line}"
                )
            own[name] = self._below(name, value)
        return merged | own

    def entry(self, name: str) -> Item:
        """Return the value of a key, or where it would stand."""
        return self.entries().get(name) or self._below(name, self.node)

    def fields(self, keys: Keys) -> dict[str, Item]:
        """Return the values given, by key; raise InvalidRequest for keys there are not."""
        entries = self.entries()
        for name, item in entries.items():
            if name not in keys:
                near = get_close_matches(name, keys, 1)
                meant = f"did you mean {near[0]}? " if near else ""
                raise item.fault(f"is not known; {meant}known are {', '.join(sorted(keys))}")
        found = {name: item for name, item in entries.items() if not item.is_null}
        for name, field in keys.items():
            if field.is_needed and name not in found:
                raise self.entry(name).fault("is missing")
        return found

    def read(self, keys: Keys) -> dict[str, Any]:
        """Return what the values given mean, by the names that their fields have."""
        found = self.fields(keys)
        return {keys[name].name or name: keys[name].read(item) for name, item in found.items()}

    def build(self, make: Callable[..., T], keys: Keys) -> T:
        """Return what is made of the values given."""
        values = self.read(keys)
        try:
            return make(**values)
        except InvalidRequest as error:
            raise self.fault(f"is wrong: {error.message}") from None

    def _merged(self, value: yaml.Node) -> dict[str, Item]:
        """Return what is merged, the first of several before the others."""
        nodes = value.value if isinstance(value, yaml.SequenceNode) else [value]
        found: dict[str, Item] = {}
        for node in nodes:
            found = Item(self.path, self.key, node).entries() | found
        return found

    def _below(self, name: str, node: yaml.Node) -> Item:
        return Item(self.path, f"{self.key}.{name}" if self.key else name, node)

    def _name(self, key: yaml.Node) -> str:
        if not isinstance(key, yaml.ScalarNode):
            raise Item(self.path, self.key, key).fault("has a key that is no text")
        return str(key.value)


Reader = Callable[[Item], Any]


class Field(NamedTuple):
    """How a key is read, and its name in what is made (empty: that of the key)."""

    read: Reader
    name: str = ""
    is_needed: bool = False


Keys = Mapping[str, Field]


def read_text(path: Path) -> str:
    """Return a file's text, its ends of lines as they are; raise InvalidRequest if it has none."""
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} must be text in UTF-8: {error.reason}") from error


def parse_yaml(text: str, path: Path) -> Item | None:
    """Return what a file's text says, None for nothing; raise InvalidRequest naming the line."""
    try:
        node = yaml.compose(text, _LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        raise InvalidRequest(f"{path}:{line + 1}: this is not YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        raise InvalidRequest(f"{path}:{line + 1}: this is not YAML: {error.reason}") from error
    except RecursionError:
        raise InvalidRequest(f"{path}: this is nested too deeply") from None
    return None if node is None else Item(path, "", node)
