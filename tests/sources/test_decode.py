import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemy.text.decode import Undecodable, decode, excerpt, tidy

GERMAN = "Die Geräte prüfen: zweiundvierzig Größen über Köln"
CHINESE = "配置文件中的阈值是二十五度。请检查网关的电源，然后重新启动设备。"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GERMAN, "utf-8"),
        (GERMAN, "utf-8-sig"),
        (GERMAN, "utf-16"),
        (GERMAN, "utf-16-le"),
        (GERMAN, "utf-16-be"),
        (GERMAN, "utf-32"),
        (GERMAN, "cp1252"),
        ("“Déjà vu” – naïve café", "cp1252"),
        (CHINESE, "gb18030"),
        (CHINESE, "utf-16"),
        ("日本語の文章です。設定ファイルを確認してください。", "shift_jis"),
    ],
)
def test_text_comes_back_from_its_encoding(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)).text == text


def test_one_foreign_line_does_not_spoil_a_utf8_file() -> None:
    data = "Größe\n".encode() + "Prüfung\n".encode("cp1252") + "阈值\n".encode()
    assert decode(data).text == "Größe\nPrüfung\n阈值\n"


def test_binary_data_is_refused() -> None:
    with pytest.raises(Undecodable):
        decode(bytes(range(32)) * 50)


def test_tidy_removes_nuls_and_control_characters_and_replaces_lone_surrogates() -> None:
    assert tidy("a\0b\x07c\ud800d\r\ne\rf\u200bg\xa0h\ufeff") == "abc\ufffdd\ne\nfg h"


@given(st.text())
def test_tidy_text_can_always_be_encoded_and_is_stable(text: str) -> None:
    once = tidy(text)
    once.encode()  # would raise for a lone surrogate
    assert tidy(once) == once


@given(st.binary(max_size=400))
def test_an_excerpt_is_at_most_200_bytes_of_any_data(data: bytes) -> None:
    assert len(excerpt(data).encode()) <= 200


@given(st.binary(max_size=300))
def test_decoding_ends_in_text_or_undecodable(data: bytes) -> None:
    with contextlib.suppress(Undecodable):
        assert isinstance(decode(data).text, str)


def test_bytes_at_random_are_no_text() -> None:
    for _ in range(20):
        with pytest.raises(Undecodable):
            decode(os.urandom(4096))
