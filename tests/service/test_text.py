import json
import unicodedata

from service.text import visible


def test_plain_text_stays_as_it_is():
    for text in ("", "town/r00c07 [/red] :smile: 100 % \\n", "灯台 é ± — “a” 👍🏽 \u200b\u00a0"):
        assert visible(text) == text


def test_what_steers_terminals_ends_lines_or_turns_them_round_is_escaped():
    unseen = [chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) in ("Cc", "Cs", "Zl", "Zp")]
    unseen += "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    assert len(unseen) > 2000
    for character in unseen:
        assert visible(f"a{character}b") == f"a\\u{ord(character):04x}b"


def test_json_stays_the_same_json_on_one_line():
    value = {"a\x85\u2028": "b\n\x1b\x7f\ud800灯"}
    line = visible(json.dumps(value, ensure_ascii=False))
    assert len(line.splitlines()) == 1
    assert json.loads(line) == value
    assert line.isprintable()
