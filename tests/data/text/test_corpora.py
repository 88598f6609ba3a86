"""The corpus that comes with Python."""

import sys

import pytest

from gpt_numpy.data import builtin_corpus
from gpt_numpy.errors import DataError


def test_python_docs_are_documents_of_text():
    documents = builtin_corpus("python-docs")
    assert len(documents) > 50
    assert sum(map(len, documents)) > 300_000
    assert all(isinstance(document, str) and document for document in documents)
    assert documents == builtin_corpus("python-docs")


def test_an_unknown_corpus_is_refused():
    with pytest.raises(DataError, match="'shakespeare'.*python-docs"):
        builtin_corpus("shakespeare")


def test_a_python_without_its_help_text_is_told_apart(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="without pydoc_data"):
        builtin_corpus("python-docs")
