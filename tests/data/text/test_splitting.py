"""Training and validation documents."""

import random

import pytest

from gpt_numpy.data.text.splitting import split_documents
from gpt_numpy.errors import DataError


def make_documents(count):
    rng = random.Random(count)
    return [f"{number}:" + "".join(rng.choices("ab \n", k=rng.randrange(20, 200))) for number in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_whole_documents_near_the_fraction(seed):
    documents = make_documents(300)
    training, validation = split_documents(documents, 0.1, seed)
    assert sorted(training + validation) == sorted(documents)
    assert training == [document for document in documents if document in set(training)]
    assert 0.09 < sum(map(len, validation)) / sum(map(len, documents)) <= 0.1


def test_the_division_is_a_function_of_the_seed():
    documents = make_documents(50)
    assert split_documents(documents, 0.2, 1) == split_documents(iter(documents), 0.2, 1)
    assert split_documents(documents, 0.2, 1) != split_documents(documents, 0.2, 2)


def test_one_long_document_is_cut_at_a_line():
    document = "".join(f"line {number}\n" for number in range(500))
    (training,), (validation,) = split_documents([document], 0.1)
    assert training + validation == document
    assert training.endswith("\n")
    assert validation.startswith("line ")
    assert 0.1 <= len(validation) / len(document) < 0.11
    (training,), (validation,) = split_documents(["x" * 100], 0.25)
    assert (len(training), len(validation)) == (75, 25)


@pytest.mark.parametrize(
    "document",
    [
        "Title\n" + "x" * 100000,
        "x" * 95000 + "\n" + "x" * 5000,
        "x" * 100000 + "\n",
        "\n" + "x" * 100000,
        "a title of words\n" + "word " * 20000,
        "Title\r" + "x" * 100000,
        "\n" * 100000,
        "\u2028".join(["x" * 1000] * 100),
    ],
)
@pytest.mark.parametrize("others", [[], ["short\n"] * 3])
def test_the_share_is_an_amount_of_text_wherever_lines_end(document, others):
    for seed in range(4):
        training, validation = split_documents([document, *others], 0.1, seed)
        assert 5_000 <= sum(map(len, validation)) <= 15_000
        assert sum(map(len, training + validation)) == sum(map(len, [document, *others]))


def test_a_text_without_lines_is_cut_between_words():
    (training,), (validation,) = split_documents(["word " * 20000], 0.1)
    assert training.endswith("word") and validation.startswith(" word")


def test_no_validation():
    assert split_documents(["a", "b"], 0) == (["a", "b"], [])


@pytest.mark.parametrize(
    "documents, fraction",
    [([], 0.1), (["a"], 0.1), (["", ""], 0.5), (["ab"], -0.1), (["ab"], 1.0), (["ab"], float("nan"))],
)
def test_what_cannot_be_divided_is_refused(documents, fraction):
    with pytest.raises(DataError):
        split_documents(documents, fraction)
