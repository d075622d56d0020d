"""YAML with the numbers of YAML 1.2, such as ``1e-3``, restricted to values that JSON can represent.

PyYAML implements YAML 1.1, where ``1e-3`` is text, ``12:30`` is 750, ``017`` is 15 and ``2020-01-01`` is a date. Here
``1e-3`` is a number, ``017`` is 17, and the other two are text. As in 1.1, ``yes``, ``no``, ``on`` and ``off`` are
booleans, and ``1_000``, ``0b11`` and merge keys are allowed. https://yaml.org/spec/1.2.2/#103-core-schema

>>> load("{lr: 1e-3, text: '1e-3', seed: 017, at: 12:30}")
{'lr': 0.001, 'text': '1e-3', 'seed': 17, 'at': '12:30'}
>>> dump({"lr": 1e-3, "text": "1e-3"})
"lr: 0.001\\ntext: '1e-3'\\n"
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

DIGITS = "[0-9](?:_?[0-9])*"
DECIMAL = re.compile(rf"[-+]?{DIGITS}\Z")
INT = re.compile(rf"[-+]?(?:{DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+|0b[01]+)\Z")
FLOAT = re.compile(
    rf"[-+]?(?:(?:\.{DIGITS}|{DIGITS}(?:\.(?:{DIGITS})?)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))\Z|\.(?:nan|NaN|NAN)\Z"
)
BOOL = re.compile(r"(?i:yes|no|true|false|on|off)\Z")
NUMBER = list("-+0123456789.")  # first characters of a number
LONGEST = 400  # characters of the longest text that is read as a number
DEEPEST = 64  # levels of lists and mappings
MOST = 100_000  # values, counting those repeated by aliases each time


def load(text: str) -> Any:
    """Return the value of one YAML document.

    Raises:
        yaml.YAMLError: the text is not YAML, or it contains a duplicate key, a tag outside of JSON's types, a value
            that contains itself, or more than 100,000 values including aliases.
    """
    try:
        return yaml.load(text, _Loader)
    except (ValueError, OverflowError):  # of an escape such as "\UFFFFFFFF"
        raise yaml.MarkedYAMLError(problem="no such character") from None


def dump(tree: Any, *, width: int = 80) -> str:
    """Return YAML in the order of ``tree``, which `load` and PyYAML read as the same value."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=width)


def _tag(name: str) -> str:
    return f"tag:yaml.org,2002:{name}"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (as PyYAML has it)
    yaml_constructors = {  # noqa: RUF012
        key: make
        for key, make in yaml.SafeLoader.yaml_constructors.items()
        if key is None or key in {_tag(name) for name in ("null", "bool", "str", "seq", "map")}
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._within: list[str | None] = []  # anchors of the enclosing collections
        self._sizes: dict[int, int] = {}  # values in a node, by its id

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent) and self.peek_event().anchor in self._within:
            raise _error("a value that holds itself", self.peek_event())
        if len(self._within) > DEEPEST:
            raise _error(f"more than {DEEPEST} levels", self.peek_event())
        at = self.peek_event()
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.CollectionNode) and id(node) not in self._sizes:
            inner = node.value if isinstance(node, yaml.SequenceNode) else [one for pair in node.value for one in pair]
            self._sizes[id(node)] = 1 + sum(self._sizes.get(id(one), 1) for one in inner)
            if self._sizes[id(node)] > MOST:  # otherwise a few lines of aliases could exhaust the memory
                raise _error(f"more than {MOST:,} values", at)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        seen: dict[Any, str] = {}
        for key, _ in node.value:
            value = self.construct_object(key, deep=True)
            if not isinstance(value, str | int | float | bool | None):
                raise _error("a key that is a list or a mapping", key)
            if seen.setdefault(value, key.value) != key.value:  # 1 and 0x1, yes and true
                raise _error(f"the keys '{seen[value]}' and '{key.value}' are one", key)
        return super().construct_mapping(node, deep=deep)

    def compose_sequence_node(self, anchor: Any) -> Any:
        self._within.append(anchor)
        node = super().compose_sequence_node(anchor)
        self._within.pop()
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        self._within.append(anchor)
        node = super().compose_mapping_node(anchor)
        self._within.pop()
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.tag != _tag("merge"):
                raise _error(f"the key '{key.value}' stands twice", key)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes text which either version of YAML would read as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _error(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _int(loader: _Loader, node: Any) -> int | str:
    text = _scalar(loader, node, "whole number", INT)
    if len(text) > LONGEST:
        return text
    plain = text.replace("_", "").lower()
    return int(plain, 0) if re.search("0[xob]", plain) else int(plain)


def _float(loader: _Loader, node: Any) -> float | str:
    text = _scalar(loader, node, "number", FLOAT, DECIMAL)
    plain = text.replace("_", "").lower()
    if plain.lstrip("+-") in (".inf", ".nan"):
        return float(plain.replace(".", ""))
    # 7e1234567 is more likely a commit hash than infinity.
    return float(plain) if math.isfinite(float(plain)) else text


def _scalar(loader: _Loader, node: Any, kind: str, *forms: re.Pattern[str]) -> str:
    """Return the text of a value, after checking it against an explicit tag."""
    text = str(loader.construct_scalar(node))
    if not any(form.match(text) for form in forms):
        raise _error(f"'{text}' is no {kind}", node)
    return text


def _bool(loader: _Loader, node: Any) -> bool:
    return bool(loader.bool_values[_scalar(loader, node, "truth value", BOOL).lower()])


for _name, _make in (("int", _int), ("float", _float), ("bool", _bool)):
    _Loader.add_constructor(_tag(_name), _make)
for _first, _resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items():
    for _whole, _regexp in _resolvers:
        if _whole in (_tag("null"), _tag("bool"), _tag("merge")):
            _Loader.add_implicit_resolver(_whole, _regexp, [_first])
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_tag("int"), INT, NUMBER)
    _class.add_implicit_resolver(_tag("float"), FLOAT, NUMBER)
