"""Which characters are letters, numbers and white space, by a pinned version of Unicode.

The ids of a text depend on these classes. Packages that know them (``regex``, Python's own ``unicodedata``) follow
whichever version of Unicode was current when they were installed, and thousands of characters become letters with each.
So the package carries a table of its own: the one that tiktoken uses, whose ids are GPT-2's.

    data                  the table, written by ``python -m gpt_numpy.unicode.tables_from_tiktoken``
    classes               the table as arrays, and texts made independent of ``regex``'s tables
    tables_from_tiktoken  asks tiktoken for the category of every character
"""

from .data import VERSION

__all__ = ["VERSION"]
