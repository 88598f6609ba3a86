"""Pieces of text that other programs' tokenizers are compared on: words, numbers, white space, letters of several scripts."""

PIECES = [
    *("the", " The", "don't", "'s", "'LL", "'"),
    *(" 1234", "56", "½"),
    *("\n", "\n\n", "\r\n", "\t", "  ", "\u00a0"),
    *("...", " -", "_x", "~", "=("),
    *("é", "ß", "привет", "日本", " 🙂"),
]
