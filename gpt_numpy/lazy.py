"""Public names of a package that are loaded when first used, so that importing the package stays cheap."""

import importlib
import sys
from collections.abc import Mapping
from typing import Any


def load(package: str, homes: Mapping[str, str], name: str) -> Any:
    """The object ``name`` of ``package``, from the module that ``homes`` names; from then on it is an attribute.

    For the ``__getattr__`` of a package. Raises ``AttributeError`` for a name that has no home.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
    setattr(sys.modules[package], name, value)
    return value
