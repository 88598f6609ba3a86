"""Letters, numbers and white space, by a pinned version of Unicode.

The ids of a text depend on these classes. Packages that know them (``regex``, Python's own ``unicodedata``) follow
the version of Unicode that was current at their release, and each version adds thousands of letters. This package
therefore has a table of its own: that of tiktoken, whose ids are GPT-2's.

    data                  the table, written by ``python -m gpt_numpy.unicode.tables_from_tiktoken``
    classes               the table as arrays, and texts made independent of ``regex``'s tables
    tables_from_tiktoken  asks tiktoken for the category of every character
"""

from .data import VERSION

__all__ = ["VERSION"]
