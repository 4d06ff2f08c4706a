"""Names of codecs with parameters: `int4[group=32,scales=float16,minima]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import Field, field, fields, replace
from typing import Any

from typing_extensions import Self

from sparsecompile.formats.codec import Codec


def number(default: int | None, of: str) -> Any:
    """A field that is written `group=32`: a number of columns, bits or rows."""
    return field(default=default, metadata={"of": of})


def choice(default: object, texts: Mapping[str, object]) -> Any:
    """A field that is written as one of some texts, which stand for its values."""
    return field(default=default, metadata={"texts": texts})


class Parametric(Codec):
    """A codec that is a dataclass: its name has those fields that are not the default, in order."""

    @property
    def name(self) -> str:
        """`int8`, `int8[group=128]`, `int4[group=32,scales=float16,minima,lossless]`."""
        given = [
            _written(f, getattr(self, f.name))
            for f in _fields(type(self))
            if getattr(self, f.name) != f.default
        ]
        return f"{self.family}[{','.join(given)}]" if given else self.family

    @classmethod
    def parse(cls, parameters: str) -> Self:
        """From what stands between the brackets of a name.

        Raises:
            ValueError: anything else, or in another order.
        """
        rest, given = iter(_fields(cls)), {}
        for text in parameters.split(","):
            found = next(((f.name, v) for f in rest for v in _read(f, text)), None)
            if found is None:
                takes = ", ".join(map(_spelling, _fields(cls)))
                raise ValueError(f"{cls.family} takes {takes}, not {parameters!r}")
            given[found[0]] = found[1]
        return cls(**given)

    def over(self, other: Self) -> Self:
        """Another one with what is not the default in this."""
        given = {f.name: getattr(self, f.name) for f in _fields(type(self))}
        asked = {f.name: given[f.name] for f in _fields(type(self)) if given[f.name] != f.default}
        return replace(other, **asked)  # type: ignore[type-var]


def _fields(codec: type[Parametric]) -> list[Field[Any]]:
    """In the order of names: that nothing is lost comes last."""
    return sorted(fields(codec), key=lambda f: f.name == "lossless")  # type: ignore[arg-type]


def _written(field: Field[Any], value: object) -> str:
    texts = field.metadata.get("texts", {})
    return next((t for t, meaning in texts.items() if meaning == value), f"{field.name}={value}")


def _read(field: Field[Any], text: str) -> tuple[Any, ...]:
    """The value of a field that a text stands for, if it does."""
    texts = field.metadata.get("texts")
    if texts is not None:
        return (texts[text],) if text in texts else ()
    found = re.fullmatch(rf"{field.name}=([0-9]+)", text)
    return (int(found[1]),) if found is not None else ()


def _spelling(field: Field[Any]) -> str:
    texts = field.metadata.get("texts")
    return "|".join(texts) if texts is not None else f"{field.name}=<{field.metadata['of']}>"
