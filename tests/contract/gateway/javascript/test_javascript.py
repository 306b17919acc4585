"""The JavaScript clients that people use, unchanged: openai's own and Vercel's AI SDK. Needs node and npm.

Numbers in names are those of the OpenAI conformance list.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from shared.errors import Code
from shared.messages import Failed
from tests.contract.gateway.house import House
from tests.contract.gateway.wire import TEXT
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
HERE = Path(__file__).parent
INSTALL_S = 100


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and its packages; a skip where they cannot be had."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node and npm are not here")
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "clients.mjs"):
        shutil.copy(HERE / name, folder / name)
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install the clients: {done.stderr[-300:]}")
    return folder


class Script:
    """Runs one case after another against one gateway."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url

    async def run(self, case: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            "node", "clients.mjs", case, self.url, cwd=self.folder, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0
        result: dict[str, Any] = json.loads(output)
        return result


@pytest_asyncio.fixture(loop_scope="module")
async def script(installed: Path, house: House) -> AsyncIterator[Script]:
    yield Script(installed, house.url)


async def test_04_a_whole_answer(script: Script) -> None:
    answer = await script.run("whole")
    assert (answer["content"], answer["reason"]) == (TEXT, "stop")
    assert answer["usage"]["total_tokens"] > answer["usage"]["completion_tokens"] > 0


async def test_04_06_a_streamed_answer_with_usage(script: Script) -> None:
    answer = await script.run("streamed")
    assert (answer["content"], answer["reason"], answer["roles"]) == (TEXT, "stop", 1)
    assert answer["usage"]["completion_tokens"] > 0


async def test_08_an_error_after_the_first_token_is_thrown(script: Script, house: House) -> None:
    house.fleet.fails_at[0, 2] = Failed(0, 0, Code.ENGINE_FAILED, "the engine broke", retryable=False)
    answer = await script.run("failed")
    assert answer["type"] == "APIError"
    assert "the engine broke" in answer["error"]
    assert answer["content"] == "Once upon"


async def test_12_a_client_that_aborts_leaves_nothing(script: Script, house: House) -> None:
    house.fleet.silent_at.add((0, 3))
    await script.run("left")
    await until(lambda: len(house.fleet.cancels) == 1, "the workers are told")


async def test_24_an_unknown_model_has_its_own_error(script: Script) -> None:
    answer = await script.run("refused")
    assert (answer["status"], answer["code"], answer["type"]) == (404, "model_not_found", "NotFoundError")
    assert answer["id"]


async def test_30_models_are_listed(script: Script) -> None:
    assert (await script.run("models"))["found"] == ["chat"]


async def test_a_response_is_streamed(script: Script) -> None:
    answer = await script.run("responses")
    assert answer == {"content": TEXT, "first": "response.created", "last": "response.completed"}


async def test_the_ai_sdk_reads_a_whole_answer(script: Script) -> None:
    answer = await script.run("ai_sdk_whole")
    assert (answer["content"], answer["reason"]) == (TEXT, "stop")
    assert answer["usage"]["outputTokens"] > 0


async def test_the_ai_sdk_reads_a_stream(script: Script) -> None:
    answer = await script.run("ai_sdk_streamed")
    assert (answer["content"], answer["reason"]) == (TEXT, "stop")
    assert answer["usage"]["outputTokens"] > 0
