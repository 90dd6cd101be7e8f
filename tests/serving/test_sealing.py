import pytest

from alchemy.errors import Unavailable
from serving.people.sealing import Sealing

OLD, NEW = "11" * 32, "22" * 32


def test_a_sealed_row_shows_nothing_and_opens_again() -> None:
    sealing = Sealing((NEW,))
    row = sealing.seal(b"wie oft?", "session default/ann 1")
    assert b"wie" not in row
    assert sealing.open(row, "session default/ann 1").decode() == "wie oft?"
    assert sealing.seal(b"same", "a") != sealing.seal(b"same", "a")


def test_keys_rotate_and_rows_from_before_the_first_key_stay_readable() -> None:
    before = Sealing((OLD,)).seal(b"text", "about")
    rotated = Sealing((NEW, OLD))
    assert rotated.open(before, "about") == b"text"
    assert rotated.open(b'{"plain": 1}', "about") == b'{"plain": 1}'
    with pytest.raises(Unavailable, match="ALCHEMY_HISTORY_KEY"):
        Sealing((OLD,)).open(rotated.seal(b"text", "about"), "about")
    with pytest.raises(Unavailable, match="ALCHEMY_HISTORY_KEY"):
        Sealing().open(before, "about")


def test_a_row_of_somebody_else_or_one_that_was_changed_does_not_open() -> None:
    sealing = Sealing((NEW,))
    row = sealing.seal(b"text", "session default/ann 1")
    with pytest.raises(Unavailable, match="changed or moved"):
        sealing.open(row, "session default/bob 1")
    with pytest.raises(Unavailable, match="changed or moved"):
        sealing.open(row[:-1] + bytes([row[-1] ^ 1]), "session default/ann 1")
    with pytest.raises(Unavailable, match="changed or moved"):
        sealing.open(row[:10], "session default/ann 1")
