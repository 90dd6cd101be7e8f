"""`entities.xml` of a Confluence backup."""

from pathlib import Path

import pytest

from alchemy.records import RawObject
from alchemy.sources.safe_xml import FoundElement, find_elements
from tests.sources.conftest import Read

SPACE = """<object class="Space" package="com.atlassian.confluence.spaces">
<id name="id">98306</id>
<property name="name"><![CDATA[Engineering]]></property>
<property name="key"><![CDATA[ENG]]></property></object>"""
USER = """<object class="ConfluenceUserImpl" package="com.atlassian.confluence.user">
<id name="key"><![CDATA[ff8080815a0000000000000000000001]]></id>
<property name="name"><![CDATA[Priya Raman]]></property></object>"""


CURRENT = '<property name="contentStatus"><![CDATA[current]]></property>'


def page(identity: str, title: str, extra: str = "", kind: str = "Page") -> str:
    return f"""<object class="{kind}" package="com.atlassian.confluence.pages">
<id name="id">{identity}</id>
<property name="title"><![CDATA[{title}]]></property>
<property name="space" class="Space" package="com.atlassian.confluence.spaces">
<id name="id">98306</id></property>
<collection name="bodyContents" class="java.util.Collection"><element class="BodyContent" package="x">
<id name="id">1{identity}</id></element></collection>
<property name="version">3</property>
<property name="creator" class="ConfluenceUserImpl" package="com.atlassian.confluence.user">
<id name="key"><![CDATA[ff8080815a0000000000000000000001]]></id></property>
<property name="creationDate">2026-07-12 09:00:00.000</property>
<property name="lastModificationDate">2026-07-13 11:11:11.123</property>
{extra}{"" if "contentStatus" in extra else CURRENT}
</object>"""


def body(identity: str, text: str, kind: str = "Page", form: str = "2") -> str:
    text = text.replace("]]>", "]] >")  # as Confluence writes it
    return f"""<object class="BodyContent" package="com.atlassian.confluence.core">
<id name="id">1{identity}</id>
<property name="body"><![CDATA[{text}]]></property>
<property name="content" class="{kind}" package="com.atlassian.confluence.pages">
<id name="id">{identity}</id></property>
<property name="bodyType">{form}</property></object>"""


def backup(*objects: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<hibernate-generic datetime="2026-07-13 11:11:11">\n'
        + "\n".join(objects)
        + "\n</hibernate-generic>\n"
    )


PARENT = '<property name="parent" class="Page" package="x"><id name="id">65552</id></property>'
CODE = (
    '<p>Run&nbsp;this:</p><ac:structured-macro ac:name="code"><ac:plain-text-body>'
    "<![CDATA[a[b[0]]>1 && x < 2]]></ac:plain-text-body></ac:structured-macro>"
).replace("[0]]>1", "[0] > 1")
OLD = '<property name="originalVersion" class="Page" package="x"><id name="id">65553</id></property>'


def test_current_pages_get_their_bodies_space_author_and_place(read: Read) -> None:
    data = backup(
        body("65553", CODE), page("65553", "Error codes", PARENT), USER, page("65552", "Reference"), SPACE,
        body("65552", "<p>All of it.</p>"),
    )  # fmt: skip
    outcome = read("confluence", "entities.xml", data)
    assert (outcome.keys, outcome.reasons) == (["ENG/65553", "ENG/65552"], [])
    draft = outcome.drafts[0]
    assert (draft.kind, draft.title, draft.project) == ("page", "Error codes", "Engineering")
    assert [(part.kind, part.text) for part in draft.parts] == [
        ("prose", "Run this:"),
        ("code", "a[b[0] > 1 && x < 2"),
    ]
    assert draft.fields == {
        "space": "ENG",
        "path": "Reference",
        "author": "Priya Raman",
        "created": "2026-07-12T09:00:00",
    }
    assert draft.updated == "2026-07-13T11:11:11.123000"
    assert draft.metrics["versions"] == 3
    assert draft.people == ("Priya Raman",)


def test_old_versions_drafts_and_deleted_pages_are_counted_and_left_out(read: Read) -> None:
    def status(name: str) -> str:
        return f'<property name="contentStatus"><![CDATA[{name}]]></property>'

    data = backup(
        SPACE, page("65553", "Error codes"), page("7", "Error codes", OLD),
        page("8", "Draft", status("draft")),
        page("9", "Gone", status("deleted")), body("65553", "<p>New.</p>"), body("7", "<p>Old.</p>"),
        body("8", "<p>Half.</p>"), body("9", "<p>Gone.</p>"),
    )  # fmt: skip
    outcome = read("confluence", "entities.xml", data)
    assert (outcome.keys, outcome.text) == (["ENG/65553"], "New.")
    assert outcome.reasons == ["not_current"] * 3
    assert {row.outcome for row in outcome.rejected} == {"filtered"}
    assert outcome.rejected[0].locator == "object[2] Page 7"


def test_comments_stand_at_the_end_of_their_page_and_old_bodies_are_wiki_markup(read: Read) -> None:
    comment = """<object class="Comment" package="com.atlassian.confluence.pages"><id name="id">70</id>
<property name="containerContent" class="Page" package="x"><id name="id">65553</id></property>
<property name="creatorName"><![CDATA[owen]]></property></object>"""
    data = backup(
        SPACE, comment, body("70", "<p>Still true?</p>", "Comment"), page("65553", "Error codes"),
        body("65553", "h2. Codes\n*HM-1*", form="0"),
    )  # fmt: skip
    draft = read("confluence", "entities.xml", data).draft
    assert [part.text for part in draft.parts] == ["## Codes", "HM-1", "## Comment by owen", "Still true?"]
    assert draft.metrics["comments"] == 1


def test_every_page_that_cannot_be_read_has_a_row(read: Read) -> None:
    data = backup(
        page("1", "No body"), page("", "No id"), page("2", ""), page("3", "Deep"), body("3", "<div>" * 5000),
        page("4", "Twice"), page("4", "Twice"), body("4", "<p>fine</p>"), page("5", "Post", kind="BlogPost"),
        body("5", "<p>news</p>", "BlogPost"), body("99", "<p>of nobody</p>"),
    )  # fmt: skip
    outcome = read("confluence", "entities.xml", data)
    assert sorted(outcome.reasons) == [
        "missing_field",
        "missing_field",
        "missing_field",
        "missing_field",
        "too_deep",
        "wrong_shape",
    ]
    assert outcome.keys == ["98306/4", "98306/5"]


def test_a_truncated_backup_gives_the_pages_that_are_whole(read: Read) -> None:
    data = backup(
        SPACE, page("1", "First"), body("1", "<p>one</p>"), page("2", "Second"), body("2", "<p>two</p>")
    )
    outcome = read("confluence", "entities.xml", data[: data.index("two")])
    assert outcome.keys == ["ENG/1"]
    assert sorted(outcome.reasons) == ["missing_field", "truncated"]


@pytest.mark.parametrize("entity", ['<!ENTITY a "aaaa">', '<!ENTITY a SYSTEM "file:///etc/passwd">'])
def test_a_backup_that_declares_entities_is_refused(read: Read, entity: str) -> None:
    data = backup(SPACE, page("1", "First"), body("1", "<p>one</p>"))
    data = data.replace("<hibernate", f"<!DOCTYPE hibernate-generic [{entity}]><hibernate", 1)
    outcome = read("confluence", "entities.xml", data)
    assert (outcome.keys, outcome.reasons) == ([], ["unsafe_xml"])


def test_a_ring_of_parents_ends(read: Read) -> None:
    ring = [page(one, one, PARENT.replace("65552", other)) for one, other in (("1", "2"), ("2", "1"))]
    outcome = read(
        "confluence", "entities.xml", backup(*ring, body("1", "<p>one</p>"), body("2", "<p>two</p>"))
    )
    assert [draft.fields["path"] for draft in outcome.drafts] == ["2", "1"]


def test_what_was_read_is_forgotten_so_that_memory_does_not_grow_with_the_backup(tmp_path: Path) -> None:
    path = tmp_path / "entities.xml"
    words = "word " * 4000
    path.write_text(backup(*(page(str(n), f"Page {n}") + body(str(n), words) for n in range(100))))
    raw = RawObject("confluence", "raw/confluence/entities.xml", path.stat().st_size, "0" * 64)
    found = 0
    for item in find_elements(raw, path, 2, 1 << 20, frozenset(["object"])):
        assert isinstance(item, FoundElement)
        parent = item.element.getparent()
        assert parent is not None
        whole = [child for child in parent if len(child) and child is not item.element]
        assert len(whole) <= 10  # no more than what one block of the file holds
        found += 1
    assert found == 200
