"""What gets into the private store, and who may look at it."""

import shutil
import stat

import pytest

from emberline import signing
from emberline.errors import EmberlineError
from emberline.serve import archives as admission
from emberline.serve import instance


@pytest.fixture
def private(tmp_path):
    (tmp_path / "work" / "store").mkdir(parents=True)
    return tmp_path / "work" / "store"


def test_copy_in_the_private_store_is_what_is_served(archives, keys, private):
    (one,) = admission.admit(archives[:1], private, public_key=keys.public, allow_unsigned=False)
    assert (one.key, one.source) == (("reverse", "1.0"), archives[0])
    assert one.file == private / "reverse-1.0.mar"
    assert one.file.read_bytes() == archives[0].read_bytes()
    assert one.probe.expected == (3.0, 2.0, 1.0)


def test_archive_swapped_after_its_check_is_refused(archives, keys, private, monkeypatch, tmp_path):
    source = shutil.copy(archives[0], tmp_path / archives[0].name)
    shutil.copy(signing.signature_of(archives[0]), signing.signature_of(source))
    verify = signing.verify

    def verify_then_swap(archive, public_key):
        result = verify(archive, public_key)
        source.write_bytes(archives[1].read_bytes())  # between the check and the copy
        return result

    monkeypatch.setattr(signing, "verify", verify_then_swap)
    with pytest.raises(EmberlineError, match="changed while it was verified"):
        admission.admit([source], private, public_key=keys.public, allow_unsigned=False)
    assert list(private.iterdir()) == []


def test_unsigned_archive_is_admitted_with_a_warning_when_allowed(make_archive, keys, private, tmp_path, capsys):
    source = make_archive(tmp_path, "3.0")
    (one,) = admission.admit([source], private, public_key=keys.public, allow_unsigned=True)
    assert one.key == ("reverse", "3.0")
    assert "warning: " in capsys.readouterr().err


def test_truncated_archive_is_told_as_broken(archives, keys, private, tmp_path):
    source = tmp_path / "reverse-1.0.mar"
    source.write_bytes(archives[0].read_bytes()[:-50])
    with pytest.raises(EmberlineError, match="is no whole zip file"):
        admission.admit([source], private, public_key=keys.public, allow_unsigned=True)


def test_private_folder_is_closed_to_others_and_gone_afterwards(tmp_path):
    with instance.private_folder(tmp_path / "base") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {"store", "temp", "cwd", "logs"} <= {one.name for one in folder.iterdir()}
    assert not folder.exists()


def test_folders_of_the_dead_are_swept_and_those_of_the_living_kept(tmp_path):
    base = tmp_path / "base"
    with instance.private_folder(base) as living:
        dead = base / "dead"
        (dead / "store").mkdir(parents=True)
        (dead / "lock").touch()
        with instance.private_folder(base):
            assert living.is_dir()
            assert not dead.exists()


def test_folder_that_others_may_enter_is_refused(tmp_path):
    base = tmp_path / "base"
    base.mkdir(mode=0o755)
    base.chmod(0o755)
    with pytest.raises(EmberlineError, match="no folder of this user alone"), instance.private_folder(base):
        pass


def test_state_folder_has_one_owner_at_a_time(tmp_path):
    with (
        instance.sole_owner(tmp_path / "state"),
        pytest.raises(EmberlineError, match="another `emberline serve`"),
        instance.sole_owner(tmp_path / "state"),
    ):
        pass
    with instance.sole_owner(tmp_path / "state"):
        pass
