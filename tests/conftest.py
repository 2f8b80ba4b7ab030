"""Fixtures that more than one test file needs."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest

from cai.models import EMBEDDED, resolve_model

# No test reaches for the hub: what is missing is an error, not a download.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """The folder of the embedded model (`make test` has pulled it)."""
    return resolve_model(EMBEDDED).path


@pytest.fixture
def shared_data() -> Path:
    """Real data beside the checkout; tests that read it skip where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium; see `chromium.required` for where there is none."""
    with chromium.launched() as found:
        yield found


@pytest.fixture
def watched(browser: Any) -> Iterator[chromium.Watched]:
    """A page that is checked at the end for all that it must not do."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    found = chromium.Watched(context.new_page())
    yield found
    found.check()
    context.close()
