"""``Settings`` as a TOML file, in and out. Sections are those of the table; a key may also come before any section."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import MappingProxyType

from ..config import nearest
from ..errors import ConfigError
from ..files.regular import read_regular
from .settings import sections


def read(path):
    """name → value from the TOML file at ``path``; ``ConfigError`` for invalid TOML or an unknown setting."""
    path = Path(path)
    try:
        content = tomllib.loads(read_regular(path, ConfigError).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not TOML ({error})", path=path) from None
    home = {field.name: section for section, fields in sections().items() for field in fields}
    values = {}
    for key, value in content.items():
        if key in sections() and isinstance(value, dict):
            for name, inner in value.items():
                _add(values, home, name, inner, key, path)
        else:
            _add(values, home, key, value, None, path)
    return values


def _add(values, home, name, value, section, path):
    if name not in home:
        raise ConfigError(f"unknown setting {name!r}{nearest(name, [*home, *sections()])}", path=path, field=section)
    if section is not None and home[name] != section:
        raise ConfigError(f"{name} belongs in [{home[name]}]", path=path, field=section)
    if name in values:
        raise ConfigError("set twice", path=path, field=name)
    values[name] = tuple(value) if isinstance(value, list) else value


def format(settings, unused=MappingProxyType({})):
    """The TOML text of ``settings``, every section and key, with its one line of help.

    A setting that is None, or named in ``unused`` (name → the condition that is not met), is written as a comment.
    """
    lines = []
    for section, fields in sections().items():
        lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        for field in fields:
            value = getattr(settings, field.name)
            text = f"# {field.name} =" if value is None else f"{field.name} = {_value(value)}"
            remark = field.metadata["help"]
            if field.name in unused:
                text, remark = text if value is None else f"# {text}", f"{remark}; only with {unused[field.name]}"
            lines.append(f"{text:<34}  # {remark}")
    return "\n".join(lines) + "\n"


def _value(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return repr(value)


def _text(value):
    # A JSON string is a TOML string, but for DEL, which TOML wants escaped too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
