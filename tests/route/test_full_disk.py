"""A disk that is really full: answers go on, nothing half-written stays, what was lost is told."""

import pytest

from emberline.process import wait_until


@pytest.fixture
def small_disk(tmp_path, mount_disk):
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with mount_disk(folder, 24):
        yield folder


def test_a_full_disk_is_told_and_survived(start_router, small_disk, fill_disk):
    router = start_router("--data", str(small_disk / "data"), "--generation-s", "1", weight=5000)
    (router.folder / "data").symlink_to(small_disk / "data")
    before = {answer.headers["x-request-id"] for answer in router.ask([(f"u{n}", {"n": n}) for n in range(50)])}
    wait_until(lambda: len(router.rows(columns="request_id")) == 50, 10, "their exposures")
    ready = f"{router.url}/readyz"
    assert router.client.get(ready).status_code == 200
    filler = fill_disk(small_disk)
    refused = router.client.get(ready)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "the disk is full" in refused.json()["error"]
    outcome = {"event_id": "e1", "unit": "u1", "metric": "correct", "value": 1}
    untaken = router.client.post(f"{router.url}/v1/outcomes", json={"outcomes": [outcome]})
    assert (untaken.status_code, untaken.headers["retry-after"]) == (503, "1")
    for _ in range(8):
        answers = router.ask([(f"u{n}", {"n": n}) for n in range(200)])
        assert {answer.status for answer in answers} == {200}, "predictions go on"
    wait_until(lambda: "Envoy could not write its log" in router.log, 20, "the loss is told")
    filler.unlink()
    wait_until(lambda: router.client.get(ready).status_code == 200, 10, "ready again")
    taken = router.client.post(f"{router.url}/v1/outcomes", json={"outcomes": [outcome]})
    assert taken.status_code == 202, "what was refused may be sent again"
    after = {answer.headers["x-request-id"] for answer in router.ask([(f"v{n}", {"n": n}) for n in range(50)])}
    assert router.stop() == 0
    rows = [row[0] for row in router.rows(columns="request_id")]
    assert len(rows) == len(set(rows))
    assert before | after <= set(rows), "nothing is lost that there was room for"
    assert router.rows("outcomes", "event_id") == [("e1",)]
