"""Cases are drawn from a fixed seed: 200 a kind, or 20,000 where N2KIT_FULL=1 asks for it; nothing is kept between runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, configuration, settings

configuration.set_hypothesis_home_dir(str(Path(tempfile.gettempdir(), "n2kit-hypothesis")))
ALWAYS = {
    "derandomize": True,
    "database": None,
    "deadline": None,  # a hang is caught by the law, and a slow machine is no fault
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    "phases": [Phase.explicit, Phase.generate, Phase.shrink],
}
settings.register_profile("quick", max_examples=200, **ALWAYS)  # type: ignore[arg-type]
settings.register_profile("full", max_examples=20_000, **ALWAYS)  # type: ignore[arg-type]
settings.load_profile("full" if os.environ.get("N2KIT_FULL") == "1" else "quick")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder that the commands run in; a case writes its files anew."""
    folder = tmp_path_factory.mktemp("ground")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
