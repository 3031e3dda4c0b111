"""The pages in a real Chromium: what people do, by mouse and by keyboard, and what a checker says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, Route, expect

from helpers import PAYLOADS, Scripted
from served import half_way, served
from snellen.api import run
from snellen.arena.live import Live
from snellen.arena.recorded import Recorded
from snellen.chat.conversation import Playground
from snellen.datasets.shapes import draw, figure
from snellen.decisions.decision import ArmResult, Decision
from snellen.decisions.race import GapEstimate
from snellen.decisions.record import keep_decision
from snellen.runs.filters import Filters
from snellen.runs.matching import live_models, load_all
from snellen.runs.plan import Plan, SharedResources
from snellen.runs.run import Run
from snellen.storage.store import Store
from snellen.storage.votes import VoteStore
from snellen.web.images import Uploads
from snellen.web.security import Policy, Rates
from snellen.web.state import AppState

pytestmark = pytest.mark.slow

# A page that is asked too early is asked again, however slow the machine: nothing here measures time.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The built-in models on the built-in chart."""
    found = Store(tmp_path_factory.mktemp("browser") / "workspace")
    resources = SharedResources()
    Plan(
        models=["pico:llava", "pico:llava-skewed", "pico:clip"],
        data=["chart:shapes"],
        protocols=["closed-set?rounds=2", "rank"],
        filters=Filters(limit=56),
        workspace=found,
        resources=resources,
    ).run()
    for model in resources.models.values():
        model.close()
    yield found
    found.close()


@pytest.fixture(scope="module")
def address(store: Store) -> Iterator[str]:
    """A site with a live arena of the built-in models."""
    models = live_models(["pico:llava", "pico:llava-skewed"], {}, None)
    arena = Live(
        VoteStore(store),
        models,
        image_path=Uploads(store.folder).path,
        data=load_all("chart:shapes", {}),
        max_tokens=16,
    )
    rates = Rates(dict.fromkeys(Rates().limits, (999, 999)))
    with served(AppState(store, Policy(), arena, rates)) as found:
        yield found


class Watched:
    """A page of which everything is noticed that it should not do."""

    def __init__(self, browser: Browser, address: str, **context) -> None:
        self.context = browser.new_context(base_url=address, **context)
        self.page: Page = self.context.new_page()
        self.elsewhere: list[str] = []
        self.said: list[str] = []
        self.context.on(
            "request", lambda r: None if r.url.startswith(address) else self.elsewhere.append(r.url)
        )
        self.page.on(
            "console", lambda m: self.said.append(m.text) if m.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dialog)

    def _dialog(self, dialog: Dialog) -> None:
        self.said.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def close(self) -> None:
        """Nothing was sent of other hosts, and nothing went wrong."""
        self.context.close()
        assert self.elsewhere == []
        assert self.said == []


@pytest.fixture
def watched(chromium: Browser, address: str) -> Iterator[Watched]:
    found = Watched(chromium, address, viewport={"width": 1280, "height": 900})
    yield found
    found.close()


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


def run_of(store: Store, text: str) -> Run:
    return next(Run(store, row["id"]) for row in store.list_runs() if row["id"].startswith(text))


def test_filters_stand_in_the_address(page):
    page.goto("/")
    page.get_by_label("Tables").select_option("protocol")  # acts at once
    page.wait_for_url("**by=protocol**")
    expect(page.get_by_role("heading", name="Leaderboard")).to_be_visible()
    tables = page.locator("table.board")
    expect(tables).to_have_count(2)
    page.get_by_text("Protocol", exact=False).locator("xpath=ancestor-or-self::summary").first.click()
    page.get_by_role("checkbox", name="rank").first.check()
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**protocol=rank**")
    assert "q=" not in page.url  # what was not chosen is not in the address
    expect(tables).to_have_count(1)
    expect(page.get_by_role("row")).to_have_count(4)
    page.get_by_role("searchbox", name="Search").fill("skewed")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=skewed**")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("link", name="All", exact=True).click()
    page.wait_for_url("**/")
    expect(tables).to_have_count(1)
    expect(page.get_by_role("row")).to_have_count(6)


def test_a_click_on_a_heading_sorts(page):
    page.goto("/?protocol=rank")
    names = page.locator("tbody th")
    first = names.all_inner_texts()
    page.get_by_role("link", name="accuracy % ↓").click()
    expect(page.locator("th[aria-sort=ascending]")).to_have_count(1)
    assert names.all_inner_texts() != first
    page.get_by_role("link", name="model").click()
    expect(names).to_have_text(sorted(first))


def test_from_a_cell_to_its_samples_to_one_of_them(page, store):
    one = run_of(store, "llava-skewed-closed")
    page.goto(f"/runs/{one.id}")
    link = page.locator("table.matrix td a[aria-label*=' predicted as ']").filter(has_text="1").last
    for cell in page.locator("table.matrix td a").all()[:5]:  # as large as WCAG 2.2 asks (2.5.8)
        box = cell.bounding_box()
        assert min(box["width"], box["height"]) >= 24
    words = link.get_attribute("aria-label")
    count, _, rest = words.partition(" of ")
    truth, _, said = rest.partition(" predicted as ")
    link.click()
    cards = page.locator("#samples ~ .gallery .card")
    expect(cards).to_have_count(int(count))
    for text in cards.all_inner_texts():
        assert f"label: {truth}" in text
        assert f"prediction: {said}" in text
    cards.first.get_by_role("link").last.click()
    expect(page.get_by_text("Prompts and answers")).to_be_visible()
    picture = page.locator(".picture img").first
    expect(picture).to_have_js_property("complete", True)
    expect(picture).to_have_js_property("naturalWidth", 96)  # the original, not only its preview
    before = picture.bounding_box()["width"]
    page.keyboard.press("z")
    assert picture.bounding_box()["width"] > 2 * before
    position = page.url.partition("/samples/")[2].partition("?")[0]
    page.keyboard.press("b")  # back to where it was among the samples of the cell
    page.wait_for_url(f"**truth=*predicted=*#s{position}")
    expect(page.locator(f"#s{position}")).to_be_in_viewport()
    expect(cards).to_have_count(int(count))
    page.goto(f"/runs/{one.id}/samples/0")
    page.keyboard.press("j")
    page.wait_for_url(f"**/runs/{one.id}/samples/1")


def test_two_runs_side_by_side(page, store):
    page.goto("/?by=data")
    compare = page.get_by_role("button", name="Compare", exact=True)
    expect(compare).to_be_disabled()
    page.get_by_role("checkbox", name="select pico:llava, closed-set?rounds=2").check()
    expect(compare).to_be_disabled()
    page.get_by_role("checkbox", name="select pico:llava-skewed, closed-set?rounds=2").check()
    compare.click()
    expect(page.locator("main")).to_contain_text("points")
    frames = [
        run_of(store, name).outcomes.set_index("id") for name in ("llava-closed", "llava-skewed-closed")
    ]
    right = [frame["prediction"] == frame["label"] for frame in frames]
    apart = int((right[0] != right[1]).sum())
    expect(page.get_by_role("heading", name=f"disagree ({apart})")).to_be_visible()
    shared = page.url
    page.goto("/averages")
    page.goto(shared)  # a view is shared by its address
    expect(page.get_by_role("heading", name=f"disagree ({apart})")).to_be_visible()


def test_upload_vote_reveal_ranking(page, tmp_path: Path):
    picture = tmp_path / "mine.png"
    draw(figure("browser", "star"), pixels=96).save(picture)
    page.goto("/arena")
    page.set_input_files("input[type=file]", picture)
    page.get_by_role("textbox", name="Question").fill("What type of object is in this photo?")
    page.get_by_role("button", name="Ask both").click()
    page.wait_for_selector(".votes")
    assert "pico" not in page.locator("main").inner_text()
    expect(page.locator(".said")).to_have_count(2)
    page.get_by_text("Why?").click()
    page.get_by_role("group", name="What was wrong with B").get_by_label("missed").check()
    page.get_by_role("button", name="A is better").click()
    page.wait_for_selector("text=(B missed)")
    page.get_by_role("button", name="Undo the vote").click()
    page.get_by_role("button", name="A tie").click()
    page.get_by_role("button", name="Reveal the names").click()
    page.wait_for_selector(".names")
    told = page.locator(".names").inner_text()
    assert "pico:llava" in told
    assert "pico:llava-skewed" in told
    page.get_by_role("link", name="Ranking", exact=True).click()
    expect(page.locator("table.board tbody tr")).to_have_count(2)


def test_by_keyboard_alone(page):
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.goto("/arena")

    def reach(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if name in (page.evaluate("document.activeElement.innerText") or ""):
                return
        raise AssertionError(f"{name} cannot be reached")

    reach("Draw a random image")
    page.keyboard.press("Enter")
    page.wait_for_url("**image=**")
    expect(page.get_by_role("textbox", name="Question")).to_be_focused()
    reach("Ask both")
    page.keyboard.press("Enter")
    page.wait_for_selector(".votes")
    page.keyboard.press("2")
    page.wait_for_selector("text=Your vote")
    page.keyboard.press("u")
    page.wait_for_selector(".votes")
    reach("A tie")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Your vote")
    page.keyboard.press("Enter")  # the next step has the focus
    page.wait_for_selector(".names")
    here = page.url
    page.keyboard.press("n")
    page.wait_for_url("**image=**")
    assert page.url != here
    page.keyboard.press("Control+Enter")  # the question has the focus
    page.wait_for_selector(".votes")


def test_more_than_one_question(page):
    page.goto("/arena")
    page.get_by_role("button", name="Draw a random image").click()
    page.get_by_role("button", name="Ask both").click()
    page.wait_for_selector(".votes")
    page.get_by_text("Ask a follow-up question").click()
    page.get_by_role("textbox", name="Question").fill("Describe the image.")
    page.get_by_role("button", name="Ask both").click()
    page.wait_for_selector(".votes")
    expect(page.locator(".said")).to_have_count(4)


def test_without_scripts(chromium, address):
    one = Watched(chromium, address, java_script_enabled=False)
    page = one.page
    page.goto("/arena")
    page.get_by_role("button", name="Draw a random image").click()
    page.get_by_role("button", name="Ask both").click()
    page.wait_for_selector(".votes", timeout=20_000)  # the page loads itself again
    page.get_by_role("button", name="B is better").click()
    page.get_by_role("button", name="Reveal the names").click()
    page.wait_for_selector(".names")
    page.goto("/?by=data")
    expect(page.get_by_role("button", name="Compare", exact=True)).to_be_enabled()
    one.close()


@pytest.fixture(scope="module")
def every(store) -> list[str]:
    """An address of every sort of page."""
    one, other, third = (run_of(store, name) for name in ("llava-closed", "clip-rank", "llava-skewed-closed"))
    arms = [
        ArmResult(name=run.model, run=run.id, score=0.8 - k / 10, images=56, answers=56, errors=0)
        for k, run in enumerate((one, third))
    ]
    gaps = [(n, {arms[1].name: GapEstimate(-0.1, -0.1 - 1 / n, -0.1 + 1 / n)}) for n in (16, 32, 56)]
    decision = Decision(
        choice=arms[0].name, tied=(), leader=arms[0].name, arms=tuple(arms), weighing="plain",
        score="accuracy", population=False, within=0.05, confidence=0.95, images=56, of=56, of_samples=56,
        trace=lambda: gaps,
    )  # fmt: skip
    kept = keep_decision(store, decision, "chart:shapes")
    assert kept is not None
    return [
        "/decisions", f"/decisions/{kept.id}",
        "/", "/?by=data&published=1", "/averages", "/ranking", "/arena", "/nothing", "/login",
        f"/runs/{one.id}", f"/runs/{one.id}/samples/0", f"/runs/{other.id}/samples/1",
        f"/compare?run={one.id}&run={third.id}", f"/heatmap?run={one.id}&run={other.id}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 1280),
        ("dark", 390),
        pytest.param("dark", 1280, marks=pytest.mark.exhaustive),
        pytest.param("light", 360, marks=pytest.mark.exhaustive),
    ],
)
def test_accessible_in_every_light_and_width(chromium, address, every, scheme, width):
    watched = Watched(chromium, address, viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = watched.page
    pages = [*every]
    page.goto("/arena")
    page.get_by_role("button", name="Draw a random image").click()
    page.wait_for_url("**image=**")
    pages.append(page.url.removeprefix(address))
    page.get_by_role("button", name="Ask both").click()
    page.wait_for_selector(".votes")
    pages.append(page.url.removeprefix(address))
    for path in pages:
        page.goto(path)
        if watched.said and path == "/nothing":
            watched.said.clear()  # a browser remarks upon the 404 that was asked for
        found = Axe().run(page).response["violations"]
        told = [(path, one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found]
        assert told == []
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, (path, wide)
    watched.close()


def test_a_run_under_way_is_watched_without_a_reload(chromium, tmp_path: Path):
    store = Store(tmp_path / "workspace")
    with served(AppState(store, Policy())) as address, half_way(store, 9) as finish:
        watched = Watched(chromium, address)
        watched.page.goto(f"/runs/{store.list_runs()[0]['id']}")
        expect(watched.page.locator("[data-progress]")).to_contain_text("of 9 samples")
        finish()
        expect(watched.page.locator("main")).to_contain_text("finished")
        expect(watched.page.locator("[data-progress]")).to_have_count(0)
        watched.close()
    store.close()


def test_sorting_keeps_the_place_and_the_ticks(page):
    page.set_viewport_size({"width": 1280, "height": 400})
    page.goto("/")
    box = page.get_by_role("checkbox", name="select pico:llava, closed-set?rounds=2")
    box.check()
    heading = page.get_by_role("link", name="items/s").first
    page.evaluate("scrollTo(0, 250)")
    before = page.evaluate("scrollY")
    assert before > 0
    heading.evaluate("link => link.click()")  # without scrolling to it
    page.wait_for_url("**sort=speed**")
    expect(box).to_be_checked()
    assert abs(page.evaluate("scrollY") - before) < 3


def test_averages_are_sorted_where_they_stand(page):
    page.goto("/averages")
    rows = page.locator("table[data-sortable] tbody th")
    names = rows.all_inner_texts()
    assert len(names) == 3
    page.get_by_role("button", name="model").click()
    assert rows.all_inner_texts() == sorted(names)
    page.get_by_role("button", name="model").click()
    assert rows.all_inner_texts() == sorted(names, reverse=True)
    page.get_by_role("button", name="average", exact=True).click()
    shown = page.locator("table[data-sortable] tbody tr td:nth-child(3)").all_inner_texts()
    known = [float(text) for text in shown if "missing" not in text]
    assert known == sorted(known, reverse=True)
    assert ["missing" in text for text in shown] == sorted("missing" in text for text in shown)


def test_every_bar_is_drawn(page, every):
    drawn = """svg => { const box = svg.querySelector('rect').getBoundingClientRect();
        return [box.width, box.height, Number(svg.querySelector('rect').getAttribute('width'))]; }"""
    seen = 0
    for path in every:
        if path == "/nothing":
            continue
        page.goto(path)
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        for bar in page.locator("svg.bar").all():
            width, height, wanted = bar.evaluate(drawn)
            assert height == 12, (path, height)
            assert abs(width - wanted) < 1, (path, width, wanted)
            seen += 1
    assert seen > 10


def test_classes_can_be_searched(chromium, address, store):
    watched = Watched(chromium, address)
    page = watched.page
    page.goto(f"/runs/{run_of(store, 'llava-closed').id}")
    rows = page.locator("#classes tbody tr")
    expect(rows.filter(visible=True)).to_have_count(28)
    page.get_by_label("Find a class").fill("STA")
    expect(rows.filter(visible=True)).to_have_count(1)
    expect(rows.filter(visible=True)).to_contain_text("star")
    watched.close()


def test_play(chromium, tmp_path: Path):
    """Upload, ask, see both answers as they are written, ask on; accessible on the way."""
    store = Store(tmp_path / "workspace")
    models = live_models(["pico:llava", "pico:llava-skewed"], {}, None)
    play = Playground(models, image_path=Uploads(store.folder).path, max_tokens=16)
    picture = tmp_path / "mine.png"
    draw(figure("browser", "star"), pixels=96).save(picture)
    with served(AppState(store, Policy(), play=play)) as address:
        one = Watched(chromium, address, viewport={"width": 390, "height": 844}, color_scheme="dark")
        page = one.page
        page.goto("/")
        page.get_by_role("link", name="Play", exact=True).click()
        page.set_input_files("input[type=file]", picture)
        page.get_by_role("textbox", name="Question").fill("What type of object is in this photo?")
        page.keyboard.press("Control+Enter")
        page.wait_for_url("**/play/*")
        said = page.locator(".said")
        expect(said).to_have_count(2)
        expect(page.locator("[data-stream]")).to_have_count(0)  # both are there, and the page is whole
        expect(said.first).to_contain_text("star")
        expect(page.locator("figure img")).to_have_js_property("naturalWidth", 96)
        expect(page.get_by_role("textbox", name="Question")).to_be_focused()
        page.keyboard.type("What color is the object?")
        page.keyboard.press("Control+Enter")
        expect(said).to_have_count(4)
        expect(page.locator("[data-stream]")).to_have_count(0)
        assert Axe().run(page).response["violations"] == []
        for width in (390, 320):
            page.set_viewport_size({"width": width, "height": 640})
            wide = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 0, width
        page.get_by_role("button", name="Ask the first question again").click()
        expect(said).to_have_count(2)
        expect(page.locator("[data-stream]")).to_have_count(0)
        page.get_by_role("link", name="Another image").click()
        page.wait_for_url("**/play")
        assert Axe().run(page).response["violations"] == []
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
        one.close()
        still = Watched(chromium, address, java_script_enabled=False)
        still.page.goto("/play")
        still.page.get_by_role("textbox", name="Question").fill("Describe the image.")
        still.page.get_by_role("button", name="Ask").click()
        expect(still.page.get_by_role("button", name="Ask")).to_be_visible()  # the page loads itself again
        still.close()


def test_the_end_of_an_answer_calls_no_way_off(chromium, tmp_path: Path):
    """A link is followed, though the answers end while its page is still under way."""
    store = Store(tmp_path / "workspace")
    asked = Event()
    play = Playground(
        [Scripted(lambda request: str(asked.wait(60)), "x")], image_path=Uploads(store.folder).path
    )
    with served(AppState(store, Policy(), play=play)) as address:
        one = Watched(chromium, address)
        page = one.page
        answers: list[Route] = []
        pages: list[Route] = []
        page.route("**/answers/**", lambda route: answers.append(route))
        page.goto("/play")
        page.get_by_role("textbox", name="Question").fill("What is it?")
        with page.expect_request("**/answers/**"):
            page.get_by_role("button", name="Ask").click()
        page.route("**/play", lambda route: pages.append(route))
        with page.expect_request("**/play"):
            page.get_by_role("link", name="Another image").evaluate("link => link.click()")  # does not wait
        with page.expect_event("requestfinished", lambda request: "/answers/" in request.url):
            asked.set()
            answers[0].fulfill(body="a star")
        pages[0].continue_()
        page.wait_for_url("**/play")
        one.close()


def test_payloads_stay_inert(chromium, tmp_path):
    """In names, answers and questions; a dialog, an error or a request elsewhere would be noticed."""

    store = Store(tmp_path / "workspace")
    kwargs: dict[str, Any] = {
        "data": "chart:shapes?n=20",
        "protocol": "closed-set?rounds=1",
        "workspace": store,
    }

    def said(request):
        return PAYLOADS[int(request.images[0].sha256[:4], 16) % len(PAYLOADS)]

    runs = [run(model=Scripted(said, PAYLOADS[k]), **kwargs) for k in range(2)]
    recorded = Recorded(VoteStore(store), runs, repeat=0, rng=Random(0))
    with served(AppState(store, Policy(), recorded)) as address:
        one = Watched(chromium, address)
        for path in [
            "/",
            "/averages",
            *(f"/runs/{runs[0].id}/samples/{k}" for k in range(10)),
            f"/runs/{runs[1].id}",
        ]:
            one.page.goto(path)
        one.page.goto("/arena")
        one.page.get_by_role("button", name="Start").click()
        one.page.wait_for_selector(".votes")
        for _ in range(3):
            one.page.keyboard.press("1")
            one.page.wait_for_selector("text=Your vote")
            one.page.keyboard.press("r")
            one.page.wait_for_selector(".names")
            one.page.keyboard.press("n")
            one.page.wait_for_selector(".votes")
        one.page.goto("/ranking")
        expect(one.page.locator("table.board tbody tr")).to_have_count(2)
        one.close()
    models = [Scripted(said, name) for name in "xy"]
    live = Live(VoteStore(store), models, image_path=Uploads(store.folder).path)
    with served(AppState(store, Policy(), live)) as address:
        one = Watched(chromium, address)
        picture = tmp_path / "'\"><img src=x onerror=alert(1)>.png"
        draw(figure("browser", "ring"), pixels=96).save(picture)
        for payload in PAYLOADS[:3]:
            one.page.goto("/arena")
            one.page.set_input_files("input[type=file]", picture)
            one.page.get_by_role("textbox", name="Question").fill(payload)
            one.page.get_by_role("button", name="Ask both").click()
            one.page.wait_for_selector(".votes")
            expect(one.page.locator(".asked")).to_have_js_property("innerText", payload)
        one.close()
