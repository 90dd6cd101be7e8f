"""The page in a real Chromium, by what people see and press."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from alchemy.listing import list_raw
from alchemy.records import Draft
from alchemy.release import ALIASES, note_judgment
from alchemy.settings import CleanOptions
from alchemy.sources.feedback import read
from sensors.plan import plan
from sensors.raw import seen
from serving import coordinator, pipeline
from serving.answer import Answer, Filters, Stage
from serving.people.access import ROLES
from serving.routes.pages import WEB
from tests.serving.conftest import (
    PASSWORD,
    Knowledge,
    Serve,
    Service,
    Valkey,
    eventually,
    make_passage,
    person,
)

pytestmark = pytest.mark.integration

QUESTION = "How often does the gateway retry?"
WAIT_MS = 60_000
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
HOSTILE = (
    "<script>window.hacked = 1</script> The gateway <img src=x onerror='window.hacked = 1'> retries three "
    "times. ![pixel](https://evil.example/pixel.png) [click](javascript:window.hacked=1) "
    "[page](https://evil.example/page) https://evil.example/bare"
)
Visit = Callable[[Any], Any]


@dataclass
class Browsing:
    """One Chromium. Playwright's loop occupies its thread, so it has one of its own."""

    thread: ThreadPoolExecutor
    chromium: Any
    problems: list[str] = field(default_factory=list)

    def visit(self, service: Service, steps: Visit, **context: Any) -> Any:
        """What `steps` gives for a fresh page. Fails on console errors and on requests to elsewhere."""
        self.problems.clear()
        result = self.thread.submit(self._visit, service, steps, context).result()
        assert self.problems == []
        return result

    def _visit(self, service: Service, steps: Visit, options: dict[str, Any]) -> Any:
        context = self.chromium.new_context(**{"locale": "en-US", **options})
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on("console", lambda said: said.type == "error" and self.problems.append(said.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda shown: self.problems.append(f"a dialog: {shown.message}"))
        page.on("request", lambda asked: self._note(asked.url, service.url))
        try:
            page.goto(service.url)
            return steps(page)
        finally:
            context.close()

    def _note(self, url: str, home: str) -> None:
        if not url.startswith((home, "data:", "blob:")):
            self.problems.append(f"a request to {url}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browsing]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium in PATH")
    from playwright.sync_api import sync_playwright

    with ThreadPoolExecutor(1, "browser") as thread:
        playwright = thread.submit(sync_playwright().start).result()
        launch = playwright.chromium.launch
        chromium = thread.submit(launch, executable_path=path, args=list(FLAGS)).result()
        yield Browsing(thread, chromium)
        thread.submit(chromium.close).result()
        thread.submit(playwright.stop).result()


@pytest.fixture
def service(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> Iterator[Service]:
    knowledge.champion("ALPHA")
    users = [person("ann"), person("cora", "curator"), person("root", "admin")]
    with serve(redis_url=valkey.url, users=users, feedback_export_s=0.05) as running:
        yield running


def log_in(page: Any, name: str = "ann") -> None:
    page.locator("input[name=username]").fill(name)
    page.locator("input[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.locator("#question").wait_for()


def ask(page: Any, question: str = QUESTION) -> None:
    page.locator("#question").fill(question)
    page.keyboard.press("Enter")
    page.locator("[data-phase=done]").last.wait_for()


def until(page: Any, check: Callable[[], object]) -> None:
    """Returns when `check` holds, which what the page asks for brings about."""
    while not check():
        page.wait_for_timeout(20)


def test_a_person_logs_in_asks_opens_the_citation_and_rates_the_answer_for_the_next_cycle(
    service: Service, knowledge: Knowledge, browser: Browsing
) -> None:
    searching, going = threading.Event(), threading.Event()

    def search(_: str) -> None:
        searching.set()
        going.wait(60)

    knowledge.behavior.search = search
    store = knowledge.artifacts.store
    before = plan({"feedback": seen(store, "feedback")}, None)

    def steps(page: Any) -> dict[str, Any]:
        page.get_by_label("User name").fill("cora")
        page.get_by_label("Password").fill("wrong")
        with page.expect_response("**/api/auth/login") as refused:
            page.get_by_role("button", name="Sign in").click()
        assert refused.value.status == 401
        page.get_by_role("alert").get_by_text("do not go together").wait_for()
        log_in(page, "cora")
        browser.problems.clear()  # the browser itself reports the 401
        page.get_by_role("textbox", name="Ask a question").fill(QUESTION)
        page.get_by_role("button", name="Send").click()
        page.locator(".steps .active", has_text="Retrieving").wait_for()
        assert searching.is_set()
        going.set()
        page.locator("[data-phase=done]").wait_for()
        stages = page.locator(".steps li").all_inner_texts()
        page.get_by_role("button", name="Source 1").first.click()
        page.locator("aside mark").wait_for()
        marked = page.locator("aside mark").inner_text()
        lineage = page.locator("aside").inner_text()
        with page.expect_response("**/api/feedback") as rated:
            page.get_by_role("button", name="Good answer").click()
        page.get_by_text("Your feedback was stored").wait_for()
        pressed = page.get_by_role("button", name="Good answer").get_attribute("aria-pressed")
        return {
            "stages": [stage.split()[0] for stage in stages],
            "marked": marked,
            "lineage": lineage,
            "rated": (rated.value.status, pressed),
            "badge": page.locator(".badge").inner_text(),
        }

    shown = browser.visit(service, steps)
    assert shown["stages"] == ["Retrieving", "Consulting", "Fusing"]
    assert shown["marked"] == "The ALPHA gateway retries three times. It then raises ALPHA-503 to the caller."
    assert "raw/jira/jira:ALPHA-1.json" in shown["lineage"]
    assert "ab" * 32 in shown["lineage"]
    assert shown["rated"] == (201, "true")
    assert service.http.get("/readyz").json()["release"][:8] in shown["badge"]
    eventually(lambda: list_raw(store, "feedback"))
    after = plan({"feedback": seen(store, "feedback")}, before.cursor)
    assert after.request and after.request.sources == ("feedback",)  # the sensor starts the full cycle
    (raw,) = list_raw(store, "feedback")
    path = store.local_path(raw.key)
    assert path
    (document,) = read(raw, path, CleanOptions())  # which reads it as a document
    assert isinstance(document, Draft)
    assert (document.title, document.metrics["rating"]) == (QUESTION, 1.0)


def test_everything_is_reached_by_the_keyboard(service: Service, browser: Browsing) -> None:
    def steps(page: Any) -> None:
        press = page.keyboard.press
        page.locator("input[name=username]").wait_for()
        page.keyboard.type("ann")
        press("Tab")
        page.keyboard.type(PASSWORD)
        press("Enter")
        page.locator("#question").wait_for()
        page.keyboard.type(QUESTION)
        press("Shift+Enter")
        page.keyboard.type("Please.")
        press("Enter")
        page.locator("[data-phase=done]").wait_for()
        assert "\nPlease." in page.locator(".asked").inner_text()
        for _ in range(40):
            press("Shift+Tab")
            if page.evaluate("document.activeElement.matches('button.chip')"):
                break
        press("Enter")
        page.locator("aside mark").wait_for()
        assert focused(page) == "passage-title"
        press("Escape")
        page.locator("aside").wait_for(state="hidden")
        assert page.evaluate("document.activeElement.matches('button.chip')")
        press("1")
        page.locator("aside mark").wait_for()
        press("Escape")
        press("?")
        page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
        press("Escape")
        page.get_by_role("dialog").wait_for(state="hidden")
        press("/")
        assert focused(page) == "question"

    browser.visit(service, steps)


def focused(page: Any) -> str:
    """The id of what has the focus, or else what it says."""
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent"))


def test_the_focus_stays_while_the_page_looks_what_serves(service: Service, browser: Browsing) -> None:
    def steps(page: Any) -> str:
        log_in(page)
        page.locator(".badge", has_text=service.http.get("/readyz").json()["release"][:8]).wait_for()
        badge = page.locator(".badge").element_handle()
        page.get_by_role("button", name="Keyboard shortcuts").focus()
        for _ in range(2):
            with page.expect_response("**/readyz") as looked:
                page.evaluate("dispatchEvent(new Event('online'))")  # as every 15 s
            looked.value.finished()
        assert badge.evaluate("(element) => element.isConnected")  # times differ, what it shows does not
        problem = {**looked.value.json(), "problems": {"cache": "it is away"}}
        page.route("**/readyz", lambda route: route.fulfill(json=problem))
        page.evaluate("dispatchEvent(new Event('online'))")
        page.locator(".badge", has_text="1 problems").wait_for()
        return str(page.evaluate("document.activeElement.title"))

    assert browser.visit(service, steps) == "Keyboard shortcuts"


def test_the_focus_stays_where_the_page_draws_anew(service: Service, browser: Browsing) -> None:
    def steps(page: Any) -> None:
        press = page.keyboard.press
        log_in(page, "root")
        ask(page)
        row = page.locator(".session")
        row.get_by_role("button", name="Rename").focus()
        press("Enter")
        page.get_by_label("Title").fill("Retries")
        press("Enter")
        row.get_by_role("link", name="Retries").wait_for()
        assert focused(page).startswith("rename-")
        page.locator("#to-theme").focus()
        press("Enter")
        page.get_by_role("button", name="Theme: light").wait_for()
        assert focused(page) == "to-theme"
        page.get_by_role("button", name="Source 1").first.click()
        page.locator("aside mark").wait_for()
        page.locator("#to-language").focus()
        press("Enter")
        page.get_by_role("heading", name="来源").wait_for()
        page.get_by_role("heading", name="原文 1").wait_for()
        assert focused(page) == "to-language"
        press("Enter")
        page.get_by_role("heading", name="Sources").wait_for()
        assert focused(page) == "to-language"
        page.locator("#to-view").focus()
        press("Enter")
        page.get_by_role("heading", name="Releases").wait_for()
        assert focused(page) == "to-view"
        page.get_by_role("link", name="Health").focus()
        press("Enter")
        page.get_by_role("heading", name="Health").wait_for()
        assert focused(page) == "to-health"
        page.get_by_role("button", name="Reload").focus()
        with page.expect_response("**/readyz"):
            press("Enter")
        page.locator(".section:not([aria-busy])").wait_for()
        assert focused(page) == "Reload"
        press("/")
        assert focused(page) == "question"
        press("Tab")
        press("Shift+Tab")
        row.get_by_role("button", name="Delete").focus()
        press("n")
        page.get_by_role("heading", name="What would you like to know?").wait_for()
        assert focused(page) == "question"
        row.get_by_role("button", name="Delete").focus()
        press("Enter")
        page.get_by_role("dialog").get_by_role("button", name="Delete").focus()
        press("Enter")
        page.get_by_text("Your conversations will be listed here.").wait_for()
        assert focused(page) == "new"  # the list is empty

    browser.visit(service, steps)


def test_a_run_that_is_watched_leaves_what_is_typed_alone(service: Service, browser: Browsing) -> None:
    watched = "5c0e7f6e-41a0-4cf1-9a43-0a2f0f5f3f4e"
    step = {"name": "cleaned_corpus", "status": "STARTED", "started": 1.0, "ended": None, "assets": []}
    run = {"id": watched, "status": "STARTED", "started": 1.0, "ended": None, "steps": [step], "errors": []}
    looks = 0

    def look(route: Any) -> None:
        nonlocal looks
        looks += 1
        row = {**step, "name": f"look_{looks}"}
        route.fulfill(json={"run": {**run, "steps": [row]}, "url": "http://dagster.example/", "done": False})

    def steps(page: Any) -> tuple[str, str]:
        page.clock.install()
        log_in(page, "root")
        page.route("**/api/jobs/*", look)
        page.goto(f"{service.url}/#/admin/cycle")
        field = page.get_by_label("Watch a run by its id")
        field.fill(watched)
        page.keyboard.press("Enter")
        page.get_by_text("look_1").wait_for()
        field.fill("abc")
        for n in (2, 3):
            page.clock.run_for(2000)
            page.get_by_text(f"look_{n}").wait_for()
        return field.input_value(), str(page.evaluate("document.activeElement.name"))

    assert browser.visit(service, steps) == ("abc", "run")


def test_a_hostile_document_runs_and_loads_nothing(
    service: Service, knowledge: Knowledge, browser: Browsing
) -> None:
    title = "<img src=x onerror='window.hacked = 1'>"
    passage = make_passage(f"The gateway retries three times when the hub is gone. {HOSTILE}")
    hostile = replace(passage, chunk=replace(passage.chunk, title=title, url="javascript:window.hacked=1"))
    knowledge.behavior.passages = [hostile]
    release = knowledge.champion("BETA")
    service.wait_for(release)

    def steps(page: Any) -> dict[str, Any]:
        log_in(page)
        ask(page)
        page.get_by_role("button", name="Source 1").first.click()
        page.locator("aside mark").wait_for()
        # What the service filters would not reach the page from here; the page must hold by itself.
        links = page.evaluate(
            """async (text) => {
                 const { render } = await import("/static/markdown.js");
                 const box = document.querySelector(".body");
                 box.replaceChildren(...render(text), ...render("| a |\\n|---|\\n| " + text + " |"));
                 return [...box.querySelectorAll("a")].map((a) => [a.href, a.rel, a.innerText]);
               }""",
            HOSTILE,
        )
        page.wait_for_timeout(300)  # for what it would load
        return {
            "links": links,
            "hacked": page.evaluate("window.hacked ?? null"),
            "around": page.locator("aside blockquote").inner_text(),
            "elements": page.locator(".body :is(script, img, iframe), aside :is(script, img)").count(),
            "hrefs": page.locator("a[href^='javascript']").count(),
            "title": page.locator("aside h3").inner_text(),
        }

    seen = browser.visit(service, steps)
    assert seen["title"] == title
    assert "<script>" in seen["around"]  # as text
    assert (seen["hacked"], seen["elements"], seen["hrefs"]) == (None, 0, 0)
    assert {href for href, _, _ in seen["links"]} == {
        "https://evil.example/pixel.png",
        "https://evil.example/page",
        "https://evil.example/bare",
    }
    assert {rel for _, rel, _ in seen["links"]} == {"noopener noreferrer"}
    assert all("evil.example" in text for _, _, text in seen["links"])


RENDER = """async (text) => {
    const { render } = await import("/static/markdown.js");
    const box = document.createElement("div");
    const start = text.indexOf("marked");
    box.append(...render(text, { marked: [{ start, end: start + 6 }] }));
    return {
      text: box.textContent,
      marked: [...box.querySelectorAll(".unsupported")].map((span) => span.textContent),
      tags: [...box.querySelectorAll("*")].map((element) => element.localName),
    };
  }"""


@pytest.mark.parametrize("mark", [">", "> "])
def test_marks_that_nest_without_end_become_text(service: Service, browser: Browsing, mark: str) -> None:
    def steps(page: Any) -> dict[str, Any]:
        shown: dict[str, Any] = page.evaluate(RENDER, mark * 20_000 + "marked")
        return shown

    shown = browser.visit(service, steps)
    assert shown["tags"].count("blockquote") <= 20
    assert (shown["text"][-6:], shown["marked"]) == ("marked", ["marked"])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("# marked ##", "marked"),
        ("# marked #  ", "marked"),
        ("#\t marked # one", "marked # one"),
        ("# marked C#", "marked C#"),
        ("# #", ""),
        pytest.param("# " + "#" * 1_000_000 + " marked", "#" * 1_000_000 + " marked", id="many"),
        pytest.param("# marked" + " #" * 500_000, "marked" + " #" * 499_999, id="many apart"),
    ],
)
def test_a_heading_is_without_what_closes_it_however_long(
    service: Service, browser: Browsing, line: str, text: str
) -> None:
    """In linear time: what tries every # for the end does not come back from the long ones."""

    def steps(page: Any) -> dict[str, Any]:
        shown: dict[str, Any] = page.evaluate(RENDER, line)
        return shown

    shown = browser.visit(service, steps)
    assert shown["text"] == text
    assert shown["tags"][0] == "h3"
    assert shown["marked"] == ["marked"] * ("marked" in text)


def test_a_stopped_answer_is_stopped_in_the_service_too(
    service: Service, knowledge: Knowledge, browser: Browsing
) -> None:
    going = threading.Event()
    knowledge.behavior.search = lambda _: going.wait(60)

    def steps(page: Any) -> int:
        log_in(page)
        page.locator("#question").fill(QUESTION)
        page.keyboard.press("Enter")
        page.locator(".steps .active", has_text="Retrieving").wait_for()
        with page.expect_response(lambda r: r.request.method == "DELETE") as stopped:
            page.get_by_role("button", name="Stop").click()
        page.locator(".notice", has_text="You stopped this answer.").wait_for()
        page.get_by_role("button", name="Send").wait_for()
        status: int = stopped.value.status
        return status

    try:
        assert browser.visit(service, steps) == 204
    finally:
        going.set()


def test_an_escape_that_an_input_method_takes_stops_no_answer(
    service: Service, knowledge: Knowledge, browser: Browsing
) -> None:
    going = threading.Event()
    knowledge.behavior.search = lambda _: going.wait(60)
    escape = "(field, isComposing) => field.dispatchEvent(new KeyboardEvent('keydown', "
    escape += "{ key: 'Escape', isComposing, bubbles: true }))"

    def steps(page: Any) -> list[str]:
        log_in(page)
        page.locator("#question").fill(QUESTION)
        page.keyboard.press("Enter")
        page.locator(".steps .active", has_text="Retrieving").wait_for()
        phases = []
        for composing in (True, False):
            page.locator("#question").evaluate(escape, composing)
            phases.append(page.locator(".turn").get_attribute("data-phase"))
        return phases

    try:
        assert browser.visit(service, steps) == ["streaming", "stopped"]
    finally:
        going.set()


def test_a_stream_that_breaks_goes_on_with_what_was_missed(service: Service, browser: Browsing) -> None:
    ann = service.as_person("ann")
    answered = service.http.post("/api/chat", json={"question": QUESTION}, headers=ann).json()
    started = f'id: 1\nevent: started\ndata: {{"id": "{answered["id"]}", "release": null}}\n\n'

    def steps(page: Any) -> tuple[str, str]:
        log_in(page)
        page.route(
            "**/api/chat",
            lambda route: route.fulfill(status=200, content_type="text/event-stream", body=started),
        )
        with page.expect_request("**/events") as resumed:
            page.locator("#question").fill(QUESTION)
            page.keyboard.press("Enter")
        page.locator("[data-phase=done]").wait_for()
        return page.locator(".body").inner_text(), resumed.value.headers["last-event-id"]

    text, last = browser.visit(service, steps)
    assert "The ALPHA gateway retries three times." in text
    assert last == "1"


def test_an_answer_is_copied_without_the_clipboard_that_plain_http_lacks(
    service: Service, browser: Browsing
) -> None:
    def steps(page: Any) -> str:
        log_in(page)
        ask(page)
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        copy = page.get_by_role("button", name="Copy the answer")
        copy.click()
        page.get_by_text("Copied", exact=True).wait_for()
        assert copy.evaluate("(element) => element === document.activeElement")
        page.locator("#question").focus()
        page.keyboard.press("Control+V")
        pasted: str = page.locator("#question").input_value()
        page.evaluate("document.execCommand = () => false")
        copy.click()
        page.locator(".toast.warn", has_text="does not let the page copy").wait_for()
        return pasted

    pasted = browser.visit(service, steps)
    assert "The ALPHA gateway retries three times." in pasted
    assert pasted.endswith("[1] jira:ALPHA-1 https://jira.example/jira:ALPHA-1")


def test_conversations_are_kept_renamed_opened_again_and_deleted(service: Service, browser: Browsing) -> None:
    def steps(page: Any) -> None:
        log_in(page)
        ask(page)
        row = page.locator(".session")
        row.get_by_role("link", name=QUESTION).wait_for()
        row.hover()
        row.get_by_role("button", name="Rename").click()
        page.get_by_label("Title").fill("Retries")
        page.get_by_role("button", name="Save").click()
        row.get_by_role("link", name="Retries").wait_for()
        page.reload()
        page.locator(".asked", has_text=QUESTION).wait_for()
        page.locator(".body", has_text="ALPHA").wait_for()
        page.get_by_role("button", name="Source 1").first.click()
        page.locator("aside mark").wait_for()
        page.get_by_role("button", name="New conversation").click()
        page.get_by_role("heading", name="What would you like to know?").wait_for()
        row.hover()
        row.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.get_by_text("Your conversations will be listed here.").wait_for()

    browser.visit(service, steps)


@pytest.mark.parametrize("first", ["POST", "GET"])
def test_a_conversation_that_begins_late_takes_over_no_other(
    service: Service, browser: Browsing, first: str
) -> None:
    waiting: dict[str, Any] = {}  # by method: beginning a conversation, opening one

    def steps(page: Any) -> tuple[str, str, str]:
        log_in(page)
        ask(page)
        shown = page.url
        kept = shown.rsplit("/", 1)[1]
        page.get_by_role("button", name="New conversation").click()
        page.get_by_role("heading", name="What would you like to know?").wait_for()

        def hold(route: Any) -> None:
            method, of_one = route.request.method, route.request.url.endswith(kept)
            if method in waiting or (method == "GET" and not of_one):
                route.continue_()
            else:
                waiting[method] = route

        page.route(re.compile(rf"/api/sessions(/{kept})?$"), hold)
        page.locator("#question").fill("Who is late?")
        page.keyboard.press("Enter")
        until(page, lambda: "POST" in waiting)
        page.locator(".session").get_by_role("link", name=QUESTION).click()
        until(page, lambda: "GET" in waiting)
        for method in (first, *({"GET", "POST"} - {first})):
            with page.expect_response(lambda r, method=method: r.request.method == method) as late:
                waiting[method].continue_()
            late.value.finished()
        page.locator(".asked", has_text=QUESTION).wait_for()
        with page.expect_request("**/api/chat") as asked:
            ask(page, "And then?")
        return page.url.removeprefix(shown), asked.value.post_data_json["session"].removeprefix(kept), kept

    assert browser.visit(service, steps)[:2] == ("", "")


def test_a_conversation_that_opens_late_takes_over_no_question_and_no_other(
    service: Service, browser: Browsing
) -> None:
    waiting: list[Any] = []

    def steps(page: Any) -> list[list[str]]:
        log_in(page)
        ask(page)
        kept = page.url.rsplit("/", 1)[1]
        shown = []

        def come() -> None:
            with page.expect_response(f"**/api/sessions/{kept}") as late:
                waiting.pop().continue_()
            late.value.finished()
            page.evaluate("0")  # what it does has been done
            shown.append(page.locator(".asked").all_text_contents())

        def hold(route: Any) -> None:
            waiting.append(route)

        page.route(f"**/api/sessions/{kept}", hold)
        page.reload()
        until(page, lambda: waiting)
        ask(page, "Who was faster?")
        come()
        page.get_by_role("button", name="New conversation").click()
        page.locator(".session").get_by_role("link", name=QUESTION).click()
        until(page, lambda: waiting)
        page.locator(".session").get_by_role("link", name="Who was faster?").click()
        page.locator("[data-phase=done]").wait_for()
        come()
        return shown

    assert browser.visit(service, steps) == [["You asked: Who was faster?"]] * 2


def test_an_admin_promotes_rolls_back_and_adds_users_and_is_asked_each_time(
    service: Service, knowledge: Knowledge, browser: Browsing
) -> None:
    first = service.http.get("/readyz").json()["release"]
    second = knowledge.release("BETA")
    note_judgment(knowledge.artifacts, second, {"passed": False, "reasons": ["recall@5 is too low"]})

    def steps(page: Any) -> None:
        log_in(page, "root")
        page.get_by_role("link", name="Administration").click()
        page.get_by_role("button", name=f"Promote {second[:8]}").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("recall@5 is too low").wait_for()
        dialog.get_by_role("button", name="Promote all the same").click()
        assert dialog.is_visible()  # the reason is missing
        dialog.get_by_label("Reason").fill("the floor is wrong")
        dialog.get_by_role("button", name="Promote all the same").click()
        page.get_by_role("row", name=second[:8]).get_by_text("champion").wait_for()
        page.get_by_role("button", name="Roll back").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        page.get_by_role("row", name=first[:8]).get_by_text("champion").wait_for()
        page.get_by_role("button", name=f"Show {second[:8]}").click()
        page.get_by_text("forced: the floor is wrong").wait_for()
        page.get_by_role("button", name="Compare", exact=True).click()
        page.get_by_role("heading", name="compared with").wait_for()
        page.get_by_role("link", name="Health").click()
        page.get_by_role("heading", name="Health").wait_for()
        page.get_by_role("link", name="Users").click()
        page.get_by_role("button", name="Add a user").click()
        page.get_by_label("User name").fill("eve")
        page.get_by_role("textbox", name="Password").fill(PASSWORD)
        page.get_by_label("May read").fill("jira/HAUL")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("row", name="eve").get_by_text("jira/HAUL").wait_for()

    browser.visit(service, steps)
    assert service.log_in("eve")["user"]["role"] == "reader"


def test_a_cycle_that_cannot_be_started_says_what_is_missing(service: Service, browser: Browsing) -> None:
    def steps(page: Any) -> None:
        log_in(page, "root")
        page.goto(f"{service.url}/#/admin/cycle")
        page.get_by_role("button", name="Start a cycle").click()
        page.get_by_role("dialog").get_by_role("button", name="Start a cycle").click()
        page.locator(".toast", has_text="ALCHEMY_SERVING_DAGSTER_URL").wait_for()
        browser.problems.clear()  # the browser itself reports the 503

    browser.visit(service, steps)


def test_a_reader_has_no_administration(service: Service, browser: Browsing) -> None:
    def steps(page: Any) -> int:
        log_in(page)
        page.goto(f"{service.url}/#/admin/users")
        page.locator("#question").wait_for()
        count: int = page.get_by_role("link", name="Administration").count()
        return count

    assert browser.visit(service, steps) == 0


@pytest.mark.parametrize(("name", "turns"), [("cora", 0), ("ann", 1)])
def test_who_signs_in_next_sees_nothing_of_who_was_there_before(
    service: Service, browser: Browsing, name: str, turns: int
) -> None:
    def steps(page: Any) -> tuple[int, int]:
        log_in(page)
        ask(page)
        page.locator(".session").wait_for()
        root = service.as_person("root")
        service.http.patch("/api/users/ann", json={"password": PASSWORD}, headers=root)  # ends ann's login
        page.locator("#question").fill("Am I still here?")
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text("Your session has ended").wait_for()
        assert not page.locator("#app").is_visible()
        log_in(page, name)
        page.locator(".who b", has_text=name).wait_for()
        page.locator(".session" if turns else "#sessions .quiet").wait_for()
        browser.problems.clear()  # the browser itself reports the 401
        return page.locator(".asked", has_text=QUESTION).count(), page.locator(".session").count()

    assert browser.visit(service, steps) == (turns, turns)


def test_a_login_outlives_a_service_that_is_away(service: Service, browser: Browsing) -> None:
    away = {"error": {"code": "unavailable", "message": "the state server is away"}}

    def steps(page: Any) -> None:
        log_in(page)
        page.route("**/api/auth/refresh", lambda route: route.fulfill(status=503, json=away))
        page.route("**/api/chat", lambda route: route.fulfill(status=401, json=away))  # the token has expired
        page.locator("#question").fill(QUESTION)
        page.keyboard.press("Enter")
        page.locator(".notice.warn", has_text="the state server is away").wait_for()
        page.reload()
        page.get_by_role("alert").get_by_text("the state server is away").wait_for()
        page.unroute_all()
        page.reload()
        ask(page)  # without a new login
        browser.problems.clear()  # the browser itself reports 401 and 503

    browser.visit(service, steps)


def test_nothing_is_wider_than_a_phone(service: Service, browser: Browsing) -> None:
    wide = (
        "[...document.querySelectorAll('#app *')].filter((e) => !e.closest('.scroll, .tabs, #side, .unseen') "
    )
    wide += "&& e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"

    def steps(page: Any) -> None:
        log_in(page, "root")
        ask(page, f"{QUESTION} {'long' * 60}?")
        assert page.evaluate(wide) == []
        page.get_by_role("button", name="Source 1").first.click()
        page.locator("aside mark").wait_for()
        assert page.evaluate(wide) == []
        page.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Conversations").click()
        page.get_by_role("button", name="New conversation").wait_for()
        page.goto(f"{service.url}/#/admin/releases")
        page.locator("table").wait_for()
        assert page.evaluate(wide) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    browser.visit(service, steps, **PHONE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(service: Service, browser: Browsing, scheme: str) -> None:
    pairs = [
        *(("ink", "paper", 4.5), ("ink", "surface", 4.5), ("ink", "sunk", 4.5), ("ink", "accent-soft", 4.5)),
        *(("quiet", "paper", 4.5), ("quiet", "surface", 4.5), ("quiet", "sunk", 4.5)),
        *(("accent", "paper", 4.5), ("accent", "accent-soft", 4.5), ("on-accent", "accent", 4.5)),
        *(("warn", "warn-soft", 4.5), ("good", "good-soft", 4.5), ("on-gold", "gold", 4.5)),
        *(("on-bad", "bad", 4.5), ("paper", "ink", 4.5), ("edge", "surface", 3.0), ("edge", "paper", 3.0)),
    ]
    colors = """(names) => names.map((name) => {
        const probe = document.body.appendChild(document.createElement("i"));
        probe.style.color = `var(--${name})`;
        return getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
      })"""

    def steps(page: Any) -> dict[str, Any]:
        page.locator("input[name=username]").wait_for()
        names = sorted({name for pair in pairs for name in pair[:2]})
        return dict(zip(names, page.evaluate(colors, names), strict=True))

    found = browser.visit(service, steps, color_scheme=scheme)
    weak = [pair for pair in pairs if contrast(found[pair[0]], found[pair[1]]) < pair[2]]
    assert weak == []
    assert (luminance(found["paper"]) > 0.5) == (scheme == "light")


def luminance(color: list[float]) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_page_speaks_chinese_to_a_chinese_browser_and_english_when_told(
    service: Service, browser: Browsing
) -> None:
    def steps(page: Any) -> list[str]:
        page.get_by_role("button", name="登录").wait_for()
        log_in(page)
        ask(page, "网关重试几次？")
        page.get_by_role("heading", name="来源").wait_for()
        page.get_by_role("button", name="来源 1").first.click()
        page.get_by_role("heading", name="原文 1").wait_for()
        languages = [page.locator("html").get_attribute("lang")]
        page.get_by_role("button", name="English").click()
        page.get_by_role("heading", name="Passage 1").wait_for()
        page.get_by_role("heading", name="Sources").wait_for()
        return [*languages, page.locator("html").get_attribute("lang")]

    assert browser.visit(service, steps, locale="zh-CN") == ["zh", "en"]


def test_the_page_is_kept_asked_about_again_and_may_load_nothing_from_elsewhere(service: Service) -> None:
    page = service.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for path in ("/", "/static/app.js", "/static/base.css"):
        first = service.http.get(path)
        assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
        again = service.http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
    assert not re.search(r"\bstyle=|<style|\son\w+=|<script(?! type=\"module\" src=)", page.text)


def test_every_word_of_the_page_is_in_the_dictionary_in_both_languages_and_no_other() -> None:
    words = (WEB / "i18n.js").read_text(encoding="utf-8")
    known = re.findall(r"^  (\w+): \[", words, re.M)
    pairs = re.findall(r"^  \w+: \[\s*\"(.+?)\",\s+\"(.+?)\",?\s*\]", words, re.M)
    assert set(known) == {word for path in sorted(WEB.glob("*.js")) for word in words_of(path)}
    assert len(pairs) == len(known) == len(set(known))
    for english, chinese in pairs:
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese))


def test_an_answer_that_another_model_wrote_says_that_the_first_one_did_not(
    service: Service, browser: Browsing
) -> None:
    def steps(page: Any) -> str:
        page.locator("input[name=username]").wait_for()
        notice: str = page.evaluate(
            """async () => {
                 const { Turn } = await import("/static/turn.js");
                 const turn = new Turn("?");
                 turn.finish({ id: "a", answer: "", citations: [], degraded: ["fallback", "conversation"] });
                 turn.show();
                 return turn.element.querySelector(".notice").textContent;
               }"""
        )
        return notice

    without = "the first language model (another one wrote), the language model's reading of your question"
    assert browser.visit(service, steps).startswith(f"Made without: {without}")


def words_of(path: Path) -> Iterator[str]:
    """The names of all words that a module of the page asks `t` for."""
    code = path.read_text(encoding="utf-8")
    for call in re.finditer(r"(?<!function )\bt\(", code):
        argument = first_argument(code[call.end() :])
        for choice in argument.split(" ? ")[-1].split(" : "):  # cond ? one : other
            literal, prefix = re.fullmatch(r'"(\w+)"', choice), re.fullmatch(r"`(\w+)\$\{.+\}`", choice)
            if literal:
                yield literal[1]
            elif prefix:
                yield from (prefix[1] + name for name in names_after(prefix[1]))
            else:
                yield from names_in(path.name, choice, code)


def first_argument(code: str) -> str:
    depth = 0
    for end, sign in enumerate(code):
        if depth == 0 and sign in ",)":
            return code[:end]
        depth += (sign in "([{") - (sign in ")]}")
    raise AssertionError(code[:80])


def names_after(prefix: str) -> set[str]:
    """What follows a prefix in the names of words: lists of the service, and two of the page's own."""

    def quoted(file: str, line: str) -> set[str]:
        (row,) = re.findall(line, (WEB / file).read_text(encoding="utf-8"))
        return set(re.findall(r"\w+", row))

    made_before = get_args(Answer.model_fields["cached"].annotation)
    return {
        "d_": degraded,
        "r_": lambda: named("output.py", r"""_gone\(["'](\w+)["']"""),
        "f_": lambda: set(Filters.model_fields),
        "cached_": lambda: {name for kind in made_before for name in get_args(kind)},
        "role_": lambda: set(ROLES),
        "theme_": lambda: quoted("app.js", r"THEMES = \[(.+)\];"),
        "e_": lambda: quoted("api.js", r"const known = \[(.+)\]\.includes"),
    }[prefix]()


def names_in(file: str, variable: str, code: str) -> set[str]:
    """What a variable in `t(variable)` can be."""
    written = {
        ("admin-releases.js", "name"): r'(?:pairs|changes)\("(\w+)"',
        ("admin-releases.js", "word"): r'\["\w+", "(\w+)"\]',
        ("admin-users.js", "word"): r'named\("(\w+)"',
        ("admin.js", "one"): r"(\w+): \w+Page\b",
        ("app.js", "name"): r'"(k_\w+)"',
        ("sessions.js", "name"): r'named\("(\w+)"',
        ("turn.js", "name"): r'\["(\w+)", answer\.\w+\]',
    }
    told = {
        ("admin-releases.js", "name"): set(ALIASES),
        ("admin-releases.js", "row.event"): named("../alchemy/release.py", r'note_event\(.+?, "(\w+)"'),
        ("turn.js", "stage"): set(get_args(Stage)),
        ("turn.js", "data.stage"): set(get_args(Stage)),
    }
    place = (file, variable)
    assert place in written or place in told, f"say here what {variable} of {file} can be"
    found = set(re.findall(written[place], code)) if place in written else set()
    return found | told.get(place, set())


def degraded() -> set[str]:
    """What an answer can say that it went without: as the code names it, and as it is documented."""
    ways = r'(?:lacks\(|lacking\.append\(|\.degraded = (?:self\.degraded or )?)"(\w+)"'
    documented = re.findall(r"^    (\w+) {2,}\S", f"{pipeline.__doc__}\n{coordinator.__doc__}", re.M)
    return named("*.py", ways) | set(documented)


def named(files: str, pattern: str) -> set[str]:
    """What the pattern finds in files of the service."""
    found = {name for path in WEB.parent.glob(files) for name in re.findall(pattern, path.read_text("utf-8"))}
    assert found
    return found
