"""A folder that is away is told from one whose archives were removed."""

from emberline.serve.shelf import Shelf


def archive(folder):
    path = folder / "digits-1.0.mar"
    path.write_bytes(b"an archive")
    return path


def test_archives_of_a_lost_mount_are_away_and_not_gone(tmp_path, mount_disk):
    for named in (False, True):
        store = tmp_path / f"store-{named}"
        store.mkdir()
        with mount_disk(store, 1):
            path = archive(store)
            shelf = Shelf([path] if named else [], store)
            assert shelf.look() == ((path,), frozenset())
        assert store.is_dir()
        assert not path.exists()
        assert shelf.look()[1] == {store}
        with mount_disk(store, 1):
            archive(store)
            assert shelf.look() == ((path,), frozenset()), "it is back, as another device"
            path.unlink()
            assert shelf.look()[1] == frozenset(), "gone, and not away"


def test_a_folder_that_is_not_there_is_away_and_takes_no_other_along(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    kept, lost = archive(tmp_path / "one"), archive(tmp_path / "other")
    shelf = Shelf([kept, lost], tmp_path)
    (tmp_path / "other").rename(tmp_path / "away")
    assert shelf.look() == ((kept, lost), {tmp_path / "other"})


def test_the_last_archive_of_a_store_may_go(tmp_path):
    path = archive(tmp_path)
    shelf = Shelf([], tmp_path)
    path.unlink()
    assert shelf.look() == ((), frozenset())
