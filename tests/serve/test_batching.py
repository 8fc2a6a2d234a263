"""One instruction of TorchServe's front end is changed, in one known class, and a busy worker's next batch is full."""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emberline.serve import batching
from emberline.serve.torchserve import _site


@pytest.fixture(scope="module")
def stock():
    (jar,) = (_site() / "ts" / "frontend").glob("*.jar")
    return zipfile.ZipFile(jar).read(batching.CLASS)


def test_one_byte_of_the_known_class_is_changed(stock):
    changed = batching.change(stock)
    assert len(changed) == len(stock)
    assert [(a, b) for a, b in zip(stock, changed, strict=True) if a != b] == [(0x9D, 0x9C)]  # ifgt, ifge


def test_another_version_of_the_class_is_left_alone(stock):
    assert batching.change(stock + b"\0") is None


@pytest.mark.parametrize(("delay", "wanted", "is_changed"), [(0, True, True), (0, False, False), (1, True, False)])
def test_the_changed_class_stands_first_only_where_it_is_asked_for(tmp_path, delay, wanted, is_changed):
    path = batching.class_path(_site(), tmp_path, batch_delay_ms=delay, take_waiting=wanted)
    assert path[-1] == f"{_site()}/ts/frontend/*"
    assert (path[:-1] == (str(tmp_path / "classes"),)) is is_changed
    assert (Path(path[0]) / batching.CLASS).is_file() is is_changed


@pytest.fixture
def alone(make_archive, keys, tmp_path):
    return make_archive(tmp_path, "1.0", keys=keys)


@pytest.mark.long
@pytest.mark.parametrize(("options", "sizes"), [((), (8, 9)), (("--set", "serve.take_waiting=false"), (2,))])
def test_what_waits_for_a_busy_worker_is_its_next_batch(start, alone, options, sizes):
    server = start(alone, *options).ready()
    with ThreadPoolExecutor(10) as pool:
        busy = pool.submit(server.ask, "1.0", sleep_s=1.0)
        waiting = [pool.submit(server.ask, "1.0") for _ in range(9)]
        answers = [one.result() for one in [busy, *waiting]]
    assert {one.status_code for one in answers} == {200}
    assert max(one.json()["batch"] for one in answers) in sizes
