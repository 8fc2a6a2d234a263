"""When an agent gives another one up."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import TCPStore

from emberline import process
from emberline.train.membership import make_rendezvous

PATIENT = {"is_host": "0", "keep_alive_interval": "1", "keep_alive_max_attempt": "600", "last_call_timeout": "1"}


@pytest.fixture
def agents(monkeypatch):
    """Two that have met, and would wait ten minutes for each other."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    store = TCPStore("127.0.0.1", 0, is_master=True, multi_tenant=True, wait_for_workers=False)
    both = [
        make_rendezvous("c10d", f"127.0.0.1:{store.port}", "job", (1, 2), local_addr="127.0.0.1", conf=PATIENT)
        for _ in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:
        assert {one.world_size for one in pool.map(lambda agent: agent.next_rendezvous(), both)} == {2}
    yield both
    for one in both:
        one.shutdown()


def test_a_silent_agent_is_given_up_sooner_once_a_worker_of_its_world_was_lost(agents):
    silent, other = agents
    silent._stop_heartbeats()
    assert other.lost_members() == []
    other.suspect()
    process.wait_until(other.lost_members, 60, "an agent that is given up")
    assert other.next_rendezvous().world_size == 1
    assert not other._holder.suspects  # the new world begins with full patience
