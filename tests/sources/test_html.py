from hypothesis import given
from hypothesis import strategies as st

from alchemy.records import Part
from alchemy.text.html import html_parts


def kinds(parts: list[Part]) -> list[tuple[str, str]]:
    return [(part.kind, part.text) for part in parts]


def test_a_page_becomes_headings_prose_lists_tables_and_code_in_order() -> None:
    page = """<html><body><h1>Setup</h1><p>First <b>the</b>   power.</p>
      <ul><li>one<ul><li>inner</li></ul></li><li>two</li></ul><ol><li>a</li><li>b</li></ol>
      <table><tr><th>Code</th><th>Meaning</th></tr><tr><td>1</td><td>too <i>large</i></td></tr></table>
      <h2>Run</h2><pre>if x:
    go()</pre><p>Done.<br>Really.</p></body></html>"""
    assert kinds(html_parts(page)) == [
        ("heading", "# Setup"),
        ("prose", "First the power.\n\n- one\n  - inner\n- two\n\n1. a\n2. b"),
        ("table", "Code | Meaning\n1 | too large"),
        ("heading", "## Run"),
        ("code", "if x:\n    go()"),
        ("prose", "Done.\nReally."),
    ]


def test_the_content_container_wins_over_everything_around_it() -> None:
    page = """<body><div id="banner">Banner</div><div>Menu</div>
      <div id="main-content"><p>Text</p></div><div id="footer">Add comment</div></body>"""
    assert kinds(html_parts(page)) == [("prose", "Text")]


def test_without_a_container_navigation_scripts_styles_and_forms_are_left_out() -> None:
    page = """<body><nav>Home</nav><header>Logo</header><script>evil()</script><style>p{}</style>
      <p>Text</p><form><input value=x>Search</form><div role="navigation">Menu</div>
      <footer>Imprint</footer></body>"""
    assert kinds(html_parts(page)) == [("prose", "Text")]


def test_tables_of_contents_and_macro_errors_are_left_out() -> None:
    page = """<div id="main-content"><div class="toc-macro"><ul><li>Overview</li></ul></div>
      <div class="aui-message">Authenticate to retrieve your issues</div><p>Text</p></div>"""
    assert kinds(html_parts(page)) == [("prose", "Text")]


def test_a_code_macro_in_a_script_element_is_code() -> None:
    page = (
        '<div id="main-content"><script type="syntaxhighlighter" class="brush: xml">'
        "<![CDATA[&lt;a b=&quot;c&quot;/&gt;\n]]></script></div>"
    )
    assert kinds(html_parts(page)) == [("code", '<a b="c"/>\n')]


def test_a_table_that_holds_code_is_layout_and_keeps_the_code() -> None:
    parts = html_parts("<table><tr><td>Run it:</td><td><pre>a\n  b</pre></td></tr></table>")
    assert kinds(parts) == [("prose", "Run it:"), ("code", "a\n  b")]


def test_unclosed_tags_are_read_as_a_browser_does() -> None:
    assert kinds(html_parts("<ul><li>one<li>two</ul><p>three<p>four")) == [
        ("prose", "- one\n- two\n\nthree\n\nfour")
    ]


def test_fifty_thousand_nested_tags_give_their_text() -> None:
    for tag in ("div", "b", "ul", "table", "blockquote", "span"):
        parts = html_parts(f"<{tag}>" * 50_000 + "deep down" + f"</{tag}>" * 50_000 + "<p>after</p>")
        assert "deep down" in "".join(part.text for part in parts), tag


def test_entities_are_decoded_and_an_entity_bomb_does_not_grow() -> None:
    bomb = '<!DOCTYPE html [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><body><p>&lt;x&gt; &amp; &b;</p>'
    assert len("".join(part.text for part in html_parts(bomb))) < 100


@given(st.text(alphabet="<>/abdtrliuphe \n\"'=&;!-[]1", max_size=300))
def test_any_text_ends_in_parts(text: str) -> None:
    for part in html_parts(text):
        assert part.kind in ("prose", "heading", "code", "table")
