"""What inspect computes."""

import random

import numpy as np
import pytest

from gpt_numpy.data.rows.fitting import fit_rows, lay_out
from gpt_numpy.data.rows.packing import pack
from gpt_numpy.data.shards import inspecting
from gpt_numpy.data.shards.inspecting import document_lengths, examples, histogram_lines, packing_reports

EOT = 9


def make_documents(seed, count=50, longest=30):
    rng = random.Random(seed)
    return [[rng.randrange(9) for _ in range(rng.randrange(1, longest))] for _ in range(count)]


@pytest.mark.parametrize("stretch", [3, 10, 1 << 20])
def test_lengths_of_documents(monkeypatch, stretch):
    monkeypatch.setattr(inspecting, "_STRETCH", stretch)
    documents = make_documents(0)
    tokens = pack(documents, EOT)
    assert document_lengths(tokens, EOT).tolist() == [len(document) + 1 for document in documents]
    assert document_lengths(tokens[:-1], EOT).tolist()[-1] == len(documents[-1])
    assert document_lengths(tokens[:0], EOT).tolist() == []


def test_lengths_of_pieces_in_fitted_rows():
    documents = [np.array([*document, EOT]) for document in make_documents(1)]
    rows = fit_rows([len(document) for document in documents], 16)
    tokens = lay_out(rows, documents, 16, EOT, np.uint16)
    spans = [span.size for row in rows for span in row]
    # a piece of one token at a row's end, a document's own end of text, cannot be told from padding
    alone = sum(span.size == 1 and place > 0 for row in rows for place, span in enumerate(row))
    lengths = document_lengths(tokens, EOT, 16)
    assert lengths.sum() == sum(spans) - alone
    assert sorted(lengths) == sorted(spans)[: 0 or None] if not alone else len(lengths) == len(spans) - alone


def test_both_policies_are_reported():
    reports = packing_reports(np.array([25, 4, 11]), 10)
    concat, fit = reports["concat"], reports["fit"]
    assert (concat.blocks, concat.cut_documents, concat.cuts, concat.padding) == (3, 2, 3, 0)
    assert concat.kept == pytest.approx(31 / 40)
    assert (fit.blocks, fit.cut_documents, fit.cuts, fit.padding) == (4, 1, 2, 4)
    assert fit.utilisation == pytest.approx(40 / 44)
    assert fit.kept == 1


def test_the_histogram_counts_every_document():
    lines = histogram_lines(np.array([1, 2, 3, 4, 9, 1000]))
    assert [int(line.split()[3]) for line in lines] == [1, 2, 1, 1, 0, 0, 0, 0, 0, 1]
    assert sum(int(line.split()[5].replace(",", "")) for line in lines) == 1019
    assert lines[1].endswith("#" * 40)
    assert histogram_lines(np.array([], int)) == []


def test_examples_begin_with_documents():
    documents = make_documents(2, count=200)
    tokens = pack(documents, EOT)
    shown = examples(tokens, EOT, list, 5, 8)
    assert len(shown) == 5
    assert shown[0] == documents[0][:8]
    assert all(example in [document[:8] for document in documents] for example in shown)


def test_an_example_of_fitted_rows_is_of_one_document():
    documents = [np.array([i] * 12 + [EOT]) for i in range(6)]
    rows = lay_out(fit_rows([13] * 6, 5), documents, 5, EOT, np.uint16)
    for text in examples(rows, EOT, lambda ids: ids, 12, 40, row_length=5):
        assert len(set(text)) <= 1
