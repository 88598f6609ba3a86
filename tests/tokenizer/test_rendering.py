import re
from html.parser import HTMLParser

from gpt_numpy.tokenizer import Tokenizer
from gpt_numpy.tokenizer.rendering import groups, html_page, terminal_lines, visible, width

TEXT = "Hi <b>&'\"\n\tthere\x00 \ud83d\ude42é".encode("utf-16", "surrogatepass").decode("utf-16") + "日本\u200b e\u0301"


def tokens_of(text):
    tokenizer = Tokenizer.train([text], 262, special_tokens=())
    ids = tokenizer.encode(text)
    return ids, {i: tokenizer.decode_bytes([i]) for i in set(ids)}


def test_every_token_has_something_to_see():
    assert visible(b" the") == "·the"
    assert visible(b"\r\n\t\x00") == "␍⏎⇥␀"
    assert visible("é日".encode()) == "é日"
    assert visible(b"\xe6\x97") == "‹e6 97›"
    assert visible("\u200b\u0301\ufeff".encode()) == "‹200b›‹0301›‹feff›"


def test_width_counts_cells():
    assert [width(text) for text in ("", "ab", "日本", "é🙂")] == [0, 2, 4, 3]


def test_terminal_lines_hold_every_token_and_id_within_the_columns():
    ids, tokens = tokens_of(TEXT)
    for columns in (20, 33, 200):
        lines = list(terminal_lines(ids, tokens, columns, colour=False))
        assert max(map(width, lines)) <= columns
        assert [int(number) for line in lines[1::2] for number in line.split()] == ids
        shown = [text.strip(" ") for line in lines[::2] for text in re.split(r"[|+]", line)]
        assert shown == [visible(tokens[i]) for i in ids]


def test_each_id_stands_under_its_token():
    lines = list(terminal_lines([97, 256, 98], {97: b"a", 98: b"b", 256: " 日本".encode()}, 40, colour=False))
    assert lines == ["a |·日本|b", "97 256   98"]


def test_the_tokens_of_one_character_are_a_group():
    tokens = {1: b"a ", 2: b"\xe6", 3: b"\x97", 4: b"\xa5", 5: b"\xff", 6: b"b"}
    assert list(groups([1, 2, 3, 4, 1, 5, 6], tokens)) == [[1], [2, 3, 4], [1], [5], [6]]
    assert list(groups([1, 2], tokens)) == [[1], [2]]
    assert next(terminal_lines([2, 3, 4, 6], tokens, 80, colour=False)) == "‹e6›+‹97›+‹a5›|b"
    coloured = next(terminal_lines([2, 3, 4, 6], tokens, 80, colour=True))
    first, *rest = re.findall(r"48;5;(\d+)m", coloured)
    assert rest[:2] == [first, first] and rest[2] != first
    page = html_page([1, 2, 3, 4, 6], tokens, 300, "t")
    assert page.count('class="g"') == 1 and "<em>日</em>" in page and "token 3: id 4" in page


def test_a_blank_has_the_same_sign_in_the_microscope():
    from gpt_numpy.study.microscope.page import _visible

    tokenizer = Tokenizer.train(["a b"], 256, special_tokens=())
    assert _visible(tokenizer, ord(" ")) == visible(b" ") == "·"


def test_colours_change_nothing_else():
    ids, tokens = tokens_of(TEXT)
    plain = [re.sub(r"[|+]", " ", line) for line in terminal_lines(ids, tokens, 60, colour=False)]
    coloured = list(terminal_lines(ids, tokens, 60, colour=True))
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain
    assert all(line.count("\x1b[0m") == line.count("\x1b[") / 2 for line in coloured)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tokens, self.ids, self.links = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("br", "meta", "input"):
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["b"]:
            self.tokens.append(data)
        elif self.open[-1:] == ["i"]:
            self.ids.append(int(data))


def test_the_page_holds_every_token_and_nothing_from_elsewhere():
    ids, tokens = tokens_of(TEXT)
    reader = _Reader()
    page = html_page(ids, tokens, 262, "<script>alert(1)</script>")
    reader.feed(page)
    assert reader.open == [] and reader.links == [] and "<script" not in page and "url(" not in page
    assert reader.ids == ids
    assert reader.tokens == [visible(tokens[i]) for i in ids]


def test_an_empty_text():
    assert list(terminal_lines([], {}, 80, colour=True)) == []
    assert "bytes per token" in html_page([], {}, 300, "nothing")
