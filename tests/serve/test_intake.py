"""Archives that come, change and go, and settings that change, while serving."""

import os
import shutil
import signal
import zipfile

import httpx
import psutil
import pytest

from emberline import process, signing
from emberline.serve import management
from emberline.serve.intake import swap


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, make_archive, keys):
    """Archives by name, signed unless the name says otherwise."""
    folder = tmp_path_factory.mktemp("shelf")

    def make(name, version, *, signed=True, **how):
        (folder / name).mkdir()
        return make_archive(folder / name, version, keys=keys if signed else None, **how)

    return {
        "1.0": make("first", "1.0"),
        "2.0": make("second", "2.0", bias=200.0),
        "2.0 changed": make("changed", "2.0", bias=250.0),
        "2.0 wrong": make("wrong", "2.0", bias=7.0, believed=8.0),
        "2.0 unsigned": make("unsigned", "2.0", bias=9.0, signed=False),
        "2.0 tuned": make("tuned", "2.0", tuned={"workers": 1, "threads": 1, "batch_size": 8, "batch_delay_ms": 0}),
    }


@pytest.fixture(scope="module")
def shop(tmp_path_factory, shelf, keys, root, launch):
    """A server that follows its store, which begins with version 1.0, and its recipe."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "store").mkdir()
    recipe = folder / "recipe.yaml"
    recipe.write_text((root / "recipes" / "digits.yaml").read_text())
    shutil.copy(root / "recipes" / "digits.experiment.yaml", folder)
    put(folder, shelf["1.0"])
    server = launch(folder, "--store", folder / "store", "--recipe", recipe, keys=keys, workers=None)
    try:
        yield server.ready()
    finally:
        server.end()


def put(folder, archive):
    """The archive first and its signature last, as `emberline archive` does."""
    target = folder / "store" / archive.name
    for source, copy in ((archive, target), (signing.signature_of(archive), signing.signature_of(target))):
        copy.unlink(missing_ok=True)
        if source.is_file():
            shutil.copy(source, copy)


def remove(folder, archive):
    (folder / "store" / archive.name).unlink()
    signing.signature_of(folder / "store" / archive.name).unlink(missing_ok=True)


def is_served(shop, *versions):
    return sorted(shop.state["models"].get("reverse", [])) == sorted(versions)


def test_archives_are_taken_in_replaced_and_let_go_without_a_restart(shop, shelf):
    java = shop.java_pid
    put(shop.folder, shelf["2.0"])
    process.wait_until(lambda: is_served(shop, "1.0", "2.0"), 60, "the new version")
    assert shop.ask("2.0").json()["outputs"] == [203.0, 202.0, 201.0]
    assert shop.readiness().json()["ready"]

    put(shop.folder, shelf["2.0 wrong"])
    process.wait_until(lambda: "does not answer its probe" in shop.output, 60, "the wrong content being refused")
    assert shop.ask("2.0").json()["outputs"] == [203.0, 202.0, 201.0], "what was served before still is"

    before = shop.worker_pids("2.0")
    put(shop.folder, shelf["2.0 changed"])
    process.wait_until(lambda: "with other content now" in shop.output, 60, "the other content")
    assert shop.ask("2.0").json()["outputs"] == [253.0, 252.0, 251.0]
    assert not set(before) & set(shop.worker_pids("2.0"))
    process.wait_until(lambda: shop.readiness().status_code == 200, 60, "its probe")

    remove(shop.folder, shelf["2.0"])
    process.wait_until(lambda: is_served(shop, "1.0"), 60, "its leaving")
    assert shop.ask("2.0").status_code == 404
    assert shop.ask("1.0").json()["outputs"] == [3.0, 2.0, 1.0]
    assert shop.java_pid == java
    assert all(one["lost_workers"] == 0 for one in shop.readiness().json()["versions"]), "none was lost by accident"


def test_replacement_that_broke_off_half_way_is_finished_by_the_next_try(shop, shelf):
    put(shop.folder, shelf["2.0"])
    process.wait_until(lambda: is_served(shop, "1.0", "2.0"), 60, "the version")
    before = shop.worker_pids("2.0")
    put(shop.folder, shelf["2.0 changed"])
    process.wait_until(lambda: not all(map(psutil.pid_exists, before)), 60, "its first worker's end", every_s=0.005)
    told = shop.output.count("to be tried again")
    os.kill(shop.java_pid, signal.SIGSTOP)
    try:
        process.wait_until(lambda: shop.output.count("to be tried again") > told, 18, "the breaking off being told")
    finally:
        os.kill(shop.java_pid, signal.SIGCONT)
    process.wait_until(lambda: not any(map(psutil.pid_exists, before)), 60, "both workers being other ones")
    process.wait_until(lambda: shop.readiness().status_code == 200, 60, "its probe")
    assert [shop.ask("2.0").json()["outputs"] for _ in range(20)] == [[253.0, 252.0, 251.0]] * 20
    remove(shop.folder, shelf["2.0"])
    process.wait_until(lambda: is_served(shop, "1.0"), 60, "its leaving")


def test_version_whose_archive_is_gone_may_be_unregistered_by_somebody_else(shop, shelf):
    put(shop.folder, shelf["2.0"])
    process.wait_until(lambda: is_served(shop, "1.0", "2.0"), 60, "the version")
    told = shop.output.count("2.0 was unregistered")
    gone = shop.output.count("is gone")
    remove(shop.folder, shelf["2.0"])
    process.wait_until(lambda: shop.output.count("is gone") > gone, 60, "the archive being missed")
    assert httpx.delete(f"http://{shop.state['management']}/models/reverse/2.0", timeout=60).is_success
    process.wait_until(lambda: shop.output.count("2.0 was unregistered") > told, 60, "its retirement")
    after_steps(shop, 4)
    assert is_served(shop, "1.0")
    assert shop.ask("1.0").json()["outputs"] == [3.0, 2.0, 1.0]


def after_steps(shop, number):
    """Returns when the store was looked at that often."""
    for name in [f"nothing-{number}.mar" for number in range(number)]:
        path = shop.folder / "store" / name
        path.write_bytes(b"nothing")
        told = shop.output.count(name)

        def is_told(name=name, told=told):
            assert shop.child.poll() is None, shop.output
            return shop.output.count(name) > told

        process.wait_until(is_told, 60, "its being looked at")
        path.unlink()


def test_unsigned_archive_is_not_taken_in_and_is_when_its_signature_comes(shop, shelf, keys):
    put(shop.folder, shelf["2.0 unsigned"])
    process.wait_until(lambda: "not taken in" in shop.output and "is not signed" in shop.output, 60, "its refusal")
    assert is_served(shop, "1.0")
    signing.sign(shop.folder / "store" / shelf["2.0 unsigned"].name, keys)
    process.wait_until(lambda: is_served(shop, "1.0", "2.0"), 60, "the version, signed now")
    assert shop.ask("2.0").json()["outputs"] == [12.0, 11.0, 10.0]
    remove(shop.folder, shelf["2.0"])
    process.wait_until(lambda: is_served(shop, "1.0"), 60, "its leaving")


def test_hangup_has_the_recipe_read_again_and_workers_scaled(shop):
    recipe = shop.folder / "recipe.yaml"
    text = recipe.read_text()
    for workers in (3, 2):
        recipe.write_text(text.replace("workers: 2", f"workers: {workers}"))
        os.kill(shop.child.pid, signal.SIGHUP)
        process.wait_until(lambda n=workers: len(shop.worker_pids("1.0")) == n, 60, f"{workers} workers")
    recipe.write_text("run: [")
    os.kill(shop.child.pid, signal.SIGHUP)
    process.wait_until(lambda: "the settings stay as they are" in shop.output, 60, "the broken recipe being told")
    recipe.write_text(text)
    recipe.write_text(text)
    assert len(shop.worker_pids("1.0")) == 2


def test_hangup_leaves_workers_that_were_tuned_or_scaled_where_their_number_did_not_change(shop, shelf):
    put(shop.folder, shelf["2.0 tuned"])
    process.wait_until(lambda: is_served(shop, "1.0", "2.0"), 60, "the tuned version")
    assert len(shop.worker_pids("2.0")) == 1, "as it was tuned"
    management.scale(shop.state["management"], "reverse", "1.0", 3)
    process.wait_until(lambda: "1.0 was scaled to 3 workers" in shop.output, 60, "its being told")
    told = shop.output.count("settings were read again")
    os.kill(shop.child.pid, signal.SIGHUP)
    process.wait_until(lambda: shop.output.count("settings were read again") > told, 60, "the reading")
    after_steps(shop, 1)
    assert (len(shop.worker_pids("1.0")), len(shop.worker_pids("2.0"))) == (3, 1)
    management.scale(shop.state["management"], "reverse", "1.0", 2)
    process.wait_until(lambda: "1.0 was scaled to 2 workers" in shop.output, 60, "its being told")
    remove(shop.folder, shelf["2.0"])
    process.wait_until(lambda: is_served(shop, "1.0"), 60, "its leaving")


def test_a_store_that_is_away_takes_no_version_along(shop):
    store, away = shop.folder / "store", shop.folder / "away"
    store.rename(away)
    process.wait_until(lambda: "store is not there; what it held is served on" in shop.output, 60, "its being told")
    recipe = shop.folder / "recipe.yaml"
    text = recipe.read_text()
    for workers in (3, 2):  # each takes a look at the store, at which a version whose archive is gone would be let go
        recipe.write_text(text.replace("workers: 2", f"workers: {workers}"))
        os.kill(shop.child.pid, signal.SIGHUP)
        process.wait_until(lambda n=workers: len(shop.worker_pids("1.0")) == n, 60, f"{workers} workers")
    assert shop.ask("1.0").json()["outputs"] == [3.0, 2.0, 1.0]
    assert is_served(shop, "1.0")
    away.rename(store)


def test_archive_that_cannot_be_unpacked_leaves_what_is_served_and_nothing_beside_it(tmp_path):
    folder, archive = tmp_path / "models" / "one", tmp_path / "next.mar"
    folder.mkdir(parents=True)
    (folder / "weights").write_text("old")
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("first", "whole")
        files.writestr("weights", "altered")
    archive.write_bytes(archive.read_bytes().replace(b"altered", b"ALTERED", 1))  # its checksum tells
    with pytest.raises(zipfile.BadZipFile):
        swap(folder, archive)
    assert [path.name for path in folder.parent.iterdir()] == ["one"]
    assert (folder / "weights").read_text() == "old"
