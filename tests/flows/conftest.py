"""Two whole houses, started once each: the embedded one, and the grown one on PostgreSQL and Valkey over TCP."""

from collections.abc import Iterator

import pytest

from tests import servers
from tests.flows import company
from tests.flows.running import RunningHouse, running_house
from tests.flows.visitor import Visitor


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with running_house(tmp_path_factory.mktemp("embedded") / "var", {}) as house:
        yield house


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with (
        servers.postgres() as database,
        servers.valkey(tcp=True) as broker,
        running_house(
            tmp_path_factory.mktemp("grown") / "var", {"DATABASE_URL": database, "REDIS_URL": broker}
        ) as house,
    ):
        yield house


# One worker process of the test run serves one house: starting it costs more than the flows.
@pytest.fixture(
    params=[
        pytest.param("embedded", marks=pytest.mark.xdist_group("embedded house")),
        pytest.param("grown", marks=pytest.mark.xdist_group("grown house")),
    ]
)
def house(request: pytest.FixtureRequest) -> RunningHouse:
    chosen: RunningHouse = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def owner(house: RunningHouse) -> Visitor:
    """The owner, signed in."""
    return company.found(house)


@pytest.fixture(autouse=True)
def _longer(request: pytest.FixtureRequest) -> None:
    """Real processes on a busy machine take their time."""
    request.node.add_marker(pytest.mark.timeout(240))
