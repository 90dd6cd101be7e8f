"""Pages in storage format: macros, CDATA, entities, and XML that means harm."""

import pytest

from alchemy.sources.drafts import joined
from alchemy.sources.reasons import Unreadable
from alchemy.sources.storage_format import storage_content
from tests.sources.conftest import Read


def macro(name: str, body: str, **parameters: str) -> str:
    given = "".join(
        f'<ac:parameter ac:name="{key}">{text}</ac:parameter>' for key, text in parameters.items()
    )
    return f'<ac:structured-macro ac:name="{name}" ac:schema-version="1">{given}{body}</ac:structured-macro>'


def rich(text: str) -> str:
    return f"<ac:rich-text-body>{text}</ac:rich-text-body>"


def plain(text: str) -> str:
    return f"<ac:plain-text-body><![CDATA[{text}]]></ac:plain-text-body>"


def shown(text: str) -> list[tuple[str, str]]:
    return [(part.kind, part.text) for part in joined(storage_content(text).parts)]


def test_code_of_a_macro_is_never_touched() -> None:
    code = 'if (a < 3 && b > "<p>") {\n    x = a[b[0]] ;  // &nbsp; &unknown;\n}'
    assert shown(f"<p>Run</p>{macro('code', plain(code), language='java')}<p>then</p>") == [
        ("prose", "Run"),
        ("code", code),
        ("prose", "then"),
    ]
    assert shown(macro("noformat", plain("  a\n b"))) == [("code", "  a\n b")]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        (macro("warning", rich("<p>Do <strong>not</strong> restart.</p>")), "Warning:\n\nDo not restart."),
        (macro("info", rich("<p>Known.</p>"), title="By the way"), "By the way\n\nKnown."),
        (macro("panel", rich("<p>Platform</p>"), title="Owners", bgColor="#fff"), "Owners\n\nPlatform"),
        (
            macro("expand", rich(macro("expand", rich("<p>deep</p>"), title="Inner")), title="Outer"),
            "Outer\n\nInner\n\ndeep",
        ),
        (
            f"<p>is {macro('status', '', title='DONE')} in {macro('jira', '', key='HAUL-1')}</p>",
            "is DONE in HAUL-1",
        ),
        (macro("toc", "", maxLevel="2") + "<p>x</p>", "x"),
        ('<p>See <ac:link><ri:page ri:content-title="Limits"/></ac:link>.</p>', "See Limits."),
        (
            '<p><ac:link><ri:page ri:content-title="L"/><ac:plain-text-link-body><![CDATA[the <limits>]]>'
            "</ac:plain-text-link-body></ac:link> apply</p>",
            "the <limits> apply",
        ),
        (
            "<p><ac:link><ac:link-body>the <em>limits</em></ac:link-body></ac:link></p>",
            "the limits",
        ),
        (
            '<p><ac:image ac:alt="Pump curve"><ri:attachment ri:filename="a.png"/></ac:image> below</p>',
            "[Pump curve] below",
        ),
        ("<p>a&nbsp;b &mdash; c &lt;d&gt; &copy; &undefined; R&D</p>", "a b — c <d> © &undefined; R&D"),
        ("<p>one<br/>two</p><!-- no --><?x no?>", "one\ntwo"),
        ("<p>x \x00\x08y</p>", "x y"),
        (macro("made-up", rich("<p>kept</p>")), "kept"),
    ],
)  # fmt: skip
def test_macros_links_and_entities_read_as_text(markup: str, text: str) -> None:
    assert shown(markup) == [("prose", text)]


def test_task_lists_keep_their_state() -> None:
    def task(status: str, text: str) -> str:
        return (
            f"<ac:task><ac:task-id>7</ac:task-id><ac:task-status>{status}</ac:task-status>"
            f"<ac:task-body><span>{text}</span></ac:task-body></ac:task>"
        )

    markup = (
        f"<ac:task-list>{task('complete', 'Page on call')}{task('incomplete', 'Write up')}</ac:task-list>"
    )
    assert shown(markup) == [("prose", "- [x] Page on call\n- [ ] Write up")]


def test_tables_keep_their_rows_and_the_macros_in_them() -> None:
    status = macro("status", "", title="LIVE")
    rows = f"<tr><th>Code</th><th>State</th></tr><tr><td>HM-1</td><td>{status}</td></tr>"
    table = f"<table><tbody>{rows}</tbody></table>"
    content = storage_content(
        f"<ac:layout><ac:layout-section><ac:layout-cell>{table}</ac:layout-cell></ac:layout-section></ac:layout>"
    )
    assert [(part.kind, part.text) for part in joined(content.parts)] == [
        ("table", "Code | State\nHM-1 | LIVE")
    ]
    assert content.tables == 1


def test_what_the_new_editor_adds_is_shown_once() -> None:
    extension = (
        '<ac:adf-extension><ac:adf-node type="panel"><ac:adf-attribute key="type">note</ac:adf-attribute>'
        "<ac:adf-content><p>Once.</p></ac:adf-content></ac:adf-node>"
        "<ac:adf-fallback><p>Once.</p></ac:adf-fallback></ac:adf-extension>"
    )
    assert shown(extension) == [("prose", "Once.")]


def test_a_document_type_inside_a_page_is_never_in_force() -> None:
    bomb = (
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>'
    )
    assert shown(f'<?xml version="1.0"?>{bomb}<p title="&b;">x&b;&f;</p>') == [("prose", "x&b;&f;")]
    text = str(shown(f"<p>y</p>{bomb}<p>&b;&f;</p>"))
    assert "a" * 16 not in text
    assert "root:" not in text


def test_unclosed_tags_keep_their_text_and_absurd_nesting_is_refused() -> None:
    assert "z" in str(shown("<p>x<b>y</p><table><tr><td>z"))
    with pytest.raises(Unreadable) as error:
        storage_content("<div>" * 50_000)
    assert error.value.reason == "too_deep"


@pytest.mark.parametrize(
    "text", ["<![CDATA[" * 20_000, "&" * 100_000, "<ac:link>" * 200, "<!DOCTYPE [" * 20_000]
)
def test_hostile_pages_take_linear_time(text: str) -> None:
    storage_content(text)


def test_a_file_of_storage_format_is_a_page(read: Read) -> None:
    page = f"<h1>Rollup lag</h1><p>Look at &nbsp;the queue.</p>{macro('code', plain('SELECT 1 < 2'))}"
    draft = read("confluence", "ops/rollup-lag.xml", page).draft
    assert (draft.kind, draft.key, draft.title) == ("page", "ops/rollup-lag", "Rollup lag")
    assert [(part.kind, part.text) for part in draft.parts] == [
        ("prose", "Look at the queue."),
        ("code", "SELECT 1 < 2"),
    ]
    deep = "<ac:layout>" + "<div>" * 50_000
    assert read("confluence", "a.xml", deep).reasons == ["too_deep"]
