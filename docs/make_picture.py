"""Draw the README's and the docs' pictures from a demo of now: its table as SVG, its report and the pages of
the web app as screenshots (where Chromium is installed), a card of the eye test, and a race.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from rich.console import Console
from rich.terminal_theme import MONOKAI

from snellen.arena.recorded import Recorded
from snellen.chat.conversation import Playground
from snellen.datasets.base import DATASETS
from snellen.datasets.shapes import draw, figure
from snellen.decisions.entry import choose
from snellen.diagnosis.analysis import Subject
from snellen.diagnosis.diagnosis import diagnose
from snellen.eye_test.eye_test import run_eye_test
from snellen.eye_test.own_images import run_own_images
from snellen.leaderboards.ranking import rank_runs
from snellen.models.pico import NAMES
from snellen.reports import page
from snellen.reports.decisions import draw_race
from snellen.reports.eye_test import draw_card
from snellen.reports.leaderboard import leaderboards
from snellen.reports.own_images import draw_own_card
from snellen.runs.filters import Filters
from snellen.runs.matching import live_models
from snellen.runs.plan import Plan
from snellen.runs.run import Run
from snellen.storage.store import Store
from snellen.storage.votes import VoteStore
from snellen.web.images import Uploads
from snellen.web.security import Policy
from snellen.web.state import AppState

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from served import served

IMAGES = Path(__file__).parent / "images"
WIDTH = 132
#: Rich's own frame without its web fonts.
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
    font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{width}" height="{height}" />
</clipPath>
{lines}
</defs>
<rect fill="{background}" width="100%" height="100%" rx="8" />
<g transform="translate(9, 18)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def screenshot(report: Path, picture: Path) -> None:
    """The first screenful of a page, as PNG."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        print("left as it is: report.png (no Chromium here)")
        return
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--screenshot={picture}", "--window-size=1120,900", report.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    print(f"written: {picture}")


def vote(store: Store, runs: list[Run], voters: int = 14, each: int = 22) -> Recorded:
    """Simulated people, who prefer the right answer nine times in ten, and mostly say tie without one."""
    vote_store, rng = VoteStore(store), Random(0)
    arena = Recorded(vote_store, runs, rng=rng)
    for k in range(voters):
        for _ in range(each):
            battle = arena.deal(f"simulated {k}")
            if battle is None:
                break
            left, right = battle.content["right"]
            choice = "tie" if left else "both_bad"
            if left != right:
                choice = "left" if left == (rng.random() < 0.9) else "right"
            elif rng.random() < 0.2:
                choice = rng.choice(["left", "right"])
            vote_store.vote(battle.id, f"simulated {k}", choice)
            vote_store.reveal(battle.id, f"simulated {k}")
    return arena


def pages(workspace: Path, runs: list[Run]) -> None:
    """The web app's pages, as PNG."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        print("left as they are: the web app's pages (no Chromium here)")
        return
    from playwright.sync_api import Page, sync_playwright

    store = Store(workspace)
    by_name = {f"{run.model} {run.protocol}": run.id for run in runs}
    full, skewed = by_name["pico:llava closed-set"], by_name["pico:llava-skewed closed-set"]
    arena = vote(store, runs)
    shots = {
        "web-leaderboard": ("/?by=data", 1280, 940, "light"),
        "web-run": (f"/runs/{skewed}", 1280, 1150, "light"),
        "web-sample": (f"/runs/{by_name['pico:llava rank']}/samples/3", 1280, 980, "dark"),
        "web-compare": (f"/compare?run={full}&run={skewed}", 1280, 900, "light"),
        "web-averages": ("/averages", 1280, 520, "light"),
        "web-classes": (
            f"/heatmap?run={full}&run={skewed}&run={by_name['pico:clip rank']}",
            900,
            900,
            "light",
        ),
        "web-ranking": ("/ranking", 1280, 1180, "light"),
        "web-phone": ("/", 390, 844, "dark"),
    }
    with served(AppState(store, Policy(), arena)) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])

        def shoot(name: str, page: Page) -> None:
            page.screenshot(path=IMAGES / f"{name}.png")
            print(f"written: {IMAGES / name}.png")

        for name, (path, width, height, scheme) in shots.items():
            page = chromium.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page.goto(address + path)
            page.wait_for_load_state("networkidle")
            shoot(name, page)
            page.close()
        page = chromium.new_page(viewport={"width": 1100, "height": 760})
        page.goto(f"{address}/arena")
        shoot("web-arena", page)
        page.get_by_role("button", name="Start").click()
        page.wait_for_selector(".votes")
        page.wait_for_load_state("networkidle")
        shoot("web-battle", page)
        page.keyboard.press("1")
        page.wait_for_selector("text=Your vote")
        page.keyboard.press("r")
        page.wait_for_selector(".names")
        page.wait_for_load_state("networkidle")
        shoot("web-revealed", page)
        chromium.close()
    play = Playground(
        live_models(["pico:llava-skewed", "pico:llava"], {}, None), image_path=Uploads(workspace).path
    )
    with served(AppState(store, Policy(), play=play)) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1100, "height": 1000})
        page.goto(f"{address}/play")
        figure_file = workspace / "figure.png"
        draw(figure("docs/play", "semicircle"), 384).save(figure_file)
        page.set_input_files("input[type=file]", figure_file)
        page.get_by_role("textbox", name="Question").fill("What type of object is in this photo?")
        page.get_by_role("button", name="Ask").click()
        page.wait_for_selector("text=tokens")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=IMAGES / "web-play.png")
        chromium.close()
    store.close()


def main() -> None:
    """Examine and draw."""
    with tempfile.TemporaryDirectory() as workspace:
        plan = Plan(
            models=[f"pico:{name}" for name in NAMES],
            data=["chart:shapes"],
            protocols=["closed-set", "binary", "rank"],
            filters=Filters(limit=140),
            workspace=workspace,
        )
        runs = plan.run()
        (table,) = leaderboards(runs, WIDTH, rank_runs(runs))
        report = Path(workspace) / "report.html"
        report.write_text(page.html(runs), encoding="utf-8")
        screenshot(report, IMAGES / "report.png")
        pages(Path(workspace), runs)
    frame = FRAME.replace("{background}", "#{:02x}{:02x}{:02x}".format(*MONOKAI.background_color))
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, highlight=False)
        console.print("[bold green]$[/] snellen demo\n")
        console.print(table)
        path = IMAGES / "leaderboard.svg"
        console.save_svg(str(path), title="snellen", code_format=frame, theme=MONOKAI, unique_id="snellen")
    print(f"written: {path}")
    with tempfile.TemporaryDirectory() as workspace:
        case = Subject(
            model="pico:llava-skewed",
            data="chart:shapes",
            store=Store(workspace),
            references=("pico:clip", "pico:classifier"),
        )
        diagnosis = Path(workspace) / "diagnosis.html"
        diagnose(case).write(diagnosis)
        case.close()
        screenshot(diagnosis, IMAGES / "diagnosis.png")
    with tempfile.TemporaryDirectory() as workspace:
        draw_card({"pico:llava": run_eye_test("pico:llava", workspace=workspace)}, IMAGES / "eye-test.png")
        own = run_own_images(
            "pico:llava", "chart:shapes?n=112", degradations=["size", "blur", "contrast"], workspace=workspace
        )
        example = DATASETS.make("chart:shapes?n=112").sample(0, (), None).images[0]
        draw_own_card({"pico:llava": own}, example, IMAGES / "eye-test-own.png")
        racing = ["pico:llava", "pico:llava-skewed", "pico:clip"]
        draw_race(
            choose(models=racing, data="chart:shapes?n=2000", within=0.03, workspace=workspace),
            IMAGES / "choose.png",
        )


if __name__ == "__main__":
    main()
