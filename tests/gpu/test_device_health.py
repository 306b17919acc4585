"""An accelerator asked for its health: it answers, under the names that it goes by everywhere."""

import pytest

from shared.engine.torch_engine.health import devices_of, probe
from shared.messages import Health

pytestmark = pytest.mark.gpu


def test_a_gpu_answers_and_has_a_name_of_its_own() -> None:
    health, why = probe("cuda")
    assert (health is Health.OK) == (why == "")
    assert "cuda:0" in devices_of("cuda")
    assert any(name.startswith("GPU-") for name in devices_of("cuda"))
    assert devices_of("cuda") == devices_of("cuda:0")
