from collections.abc import Iterator

import pytest
from agent_harness import Agent, conv_model, running_agent


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with running_agent(tmp_path_factory.mktemp("agent")) as running:
        yield running


@pytest.fixture(scope="session")
def model(agent: Agent) -> str:
    """The sha256 of a model that the shared agent holds."""
    return agent.upload(conv_model())
