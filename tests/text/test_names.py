from hypothesis import given
from hypothesis import strategies as st

from alchemy.text.names import NOBODY, People


def test_a_name_is_offered_where_its_longest_word_stands() -> None:
    people = People(["Ada Okafor", "Noor Okafor", "Emil Berg", "Emil  Berg"])
    assert people.perhaps_in("Okafor was here") == ("Ada Okafor", "Noor Okafor")
    assert people.perhaps_in("ask emil or Emil\nBerg") == ("Emil Berg",)
    assert people.perhaps_in("nobody") == ()
    assert NOBODY.perhaps_in("Emil Berg") == ()


def test_what_is_no_full_name_is_never_looked_for_in_the_records_of_others() -> None:
    names = ["mark", "Will", "root", "jenkins", "user42 smith", "R2 D2", "build-bot", "\u738b\u4f1f", "A B"]
    assert People(names).perhaps_in(" ".join(names)) == ()
    assert People(["\u6b27\u9633\u4fee"]).perhaps_in("\u6b27\u9633\u4fee\u5199\u7684") == (
        "\u6b27\u9633\u4fee",
    )
    assert People(["Mary-Jane O'Neill Jr."]).perhaps_in("by Mary-Jane O'Neill Jr.") == (
        "Mary-Jane O'Neill Jr.",
    )


@given(
    st.lists(st.sampled_from(["Ada Okafor", "Emil Berg", "Noor van Sato"]), max_size=4), st.text(max_size=40)
)
def test_a_name_that_stands_there_is_always_offered(names: list[str], text: str) -> None:
    people = People(names)
    for name in names:
        assert name in people.perhaps_in(f"{text}{name}{text}")
