"""Text that comes with Python, so that a first training run needs no download."""

import importlib

from ...errors import DataError

BUILTIN_CORPORA = ("python-docs",)


def builtin_corpus(name: str) -> list[str]:
    """The documents of the built-in corpus ``name`` as a list of str.

    ``python-docs`` is the text behind Python's ``help("topics")``: the language reference's chapters, one a
    document, in the order of their names. It differs a little between Python versions. Raises DataError for an
    unknown name, and where the installed Python lacks the text.
    """
    if name not in BUILTIN_CORPORA:
        raise DataError(
            "no such built-in corpus", field="corpus", found=name, expected=f"one of {', '.join(BUILTIN_CORPORA)}"
        )
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise DataError(
            "this Python was installed without pydoc_data.topics, the text of its help pages", field=name
        ) from error
    return [topics[key] for key in sorted(topics)]
