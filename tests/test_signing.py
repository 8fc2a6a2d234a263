"""A signed archive is what its signer signed; every way it can be otherwise has an error of its own."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emberline import signing
from emberline.errors import EmberlineError, MissingFile
from emberline.signing import AlteredArchive, AlteredSignature, InvalidKey, UnsignedArchive, WrongKey


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return signing.create_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def archive(tmp_path, keys):
    path = tmp_path / "digits-1.0.mar"
    path.write_bytes(b"an archive" * 10_000)
    signing.sign(path, keys)
    return path


def test_a_signed_archive_verifies_and_names_the_key(archive, keys):
    assert signing.verify(archive, keys.public) == keys.fingerprint


def test_halves_of_two_pairs_are_refused_before_anything_is_signed(tmp_path):
    pair, other = signing.create_keys(tmp_path / "pair"), signing.create_keys(tmp_path / "other")
    pair.public.write_bytes(other.public.read_bytes())
    with pytest.raises(InvalidKey, match=r"signing\.pub: is not the public half of signing\.key") as refused:
        signing.read_keys(tmp_path / "pair")
    assert refused.value.hint
    pair.public.unlink()
    assert signing.ensure_keys(tmp_path / "pair", print).fingerprint == pair.fingerprint


def test_what_model_signing_signs_verifies(archive, keys):
    signing.signature_of(archive).unlink()
    with pytest.raises(UnsignedArchive) as refused:
        signing.verify(archive, keys.public)
    _, line, _ = refused.value.hint.split("`")
    command = line.replace(f"keys/{keys.private.name}", str(keys.private)).split()
    subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True, capture_output=True)
    assert signing.verify(archive, keys.public) == keys.fingerprint


@pytest.mark.parametrize("position", [0, 5_000, 99_999])
def test_one_changed_byte_is_refused(archive, keys, position):
    content = bytearray(archive.read_bytes())
    content[position] ^= 1
    archive.write_bytes(content)
    with pytest.raises(AlteredArchive) as refused:
        signing.verify(archive, keys.public)
    assert refused.value.hint


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0"])
def test_another_length_is_refused(archive, keys, change):
    archive.write_bytes(change(archive.read_bytes()))
    with pytest.raises(AlteredArchive):
        signing.verify(archive, keys.public)


def test_an_unsigned_archive_is_refused(archive, keys):
    signing.signature_of(archive).unlink()
    with pytest.raises(UnsignedArchive) as refused:
        signing.verify(archive, keys.public)
    assert "emberline archive" in refused.value.hint


def test_an_archive_signed_with_another_key_is_refused(archive, tmp_path):
    other = signing.create_keys(tmp_path / "other")
    with pytest.raises(WrongKey) as refused:
        signing.verify(archive, other.public)
    assert "--keys" in refused.value.hint


def test_another_archives_signature_is_refused(archive, keys):
    other = archive.with_name("digits-1.1.mar")
    other.write_bytes(b"another archive")
    shutil.copy(signing.signature_of(archive), signing.signature_of(other))
    with pytest.raises(AlteredArchive):
        signing.verify(other, keys.public)


def reseal(archive, content):
    """Rewrites what a signature says it signed, as somebody without the key would."""
    path = signing.signature_of(archive)
    bundle = json.loads(path.read_bytes())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"][0]["digest"] = signing._sha256(archive) if content is None else content
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    path.write_text(json.dumps(bundle))


def test_a_signature_rewritten_for_an_altered_archive_is_refused(archive, keys):
    archive.write_bytes(b"something else")
    reseal(archive, None)
    with pytest.raises(AlteredSignature):
        signing.verify(archive, keys.public)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"not json", b'{"dsseEnvelope": {"payload": "%%"}}', b"[" * 100_000]
)
def test_a_file_that_is_no_signature_is_refused(archive, keys, content):
    signing.signature_of(archive).write_bytes(content)
    with pytest.raises(AlteredSignature):
        signing.verify(archive, keys.public)


def test_every_single_changed_byte_of_the_seal_is_refused(archive, keys):
    path = signing.signature_of(archive)
    bundle = json.loads(path.read_bytes())
    seal = bytearray(base64.b64decode(bundle["dsseEnvelope"]["signatures"][0]["sig"]))
    for position in range(0, len(seal), 7):
        changed = bytearray(seal)
        changed[position] ^= 1
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(changed).decode()
        path.write_text(json.dumps(bundle))
        with pytest.raises(AlteredSignature):
            signing.verify(archive, keys.public)


def test_a_missing_archive_or_key_is_said_by_name(archive, keys, tmp_path):
    with pytest.raises(MissingFile, match=r"gone\.mar"):
        signing.verify(tmp_path / "gone.mar", keys.public)
    with pytest.raises(MissingFile, match=r"gone\.pub"):
        signing.verify(archive, tmp_path / "gone.pub")
    with pytest.raises(MissingFile) as missing:
        signing.read_keys(tmp_path / "nothing")
    assert missing.value.hint == f"emberline keys --keys {tmp_path / 'nothing'}"


def test_the_private_key_is_its_owners_alone(tmp_path):
    pair = signing.create_keys(tmp_path)
    assert pair.private.stat().st_mode & 0o777 == 0o600
    assert signing.read_keys(tmp_path) == pair
    pair.private.chmod(0o644)
    with pytest.raises(InvalidKey) as refused:
        signing.read_keys(tmp_path)
    assert refused.value.hint == f"chmod 600 {pair.private}"


def test_a_lost_public_key_is_derived_from_the_private_one_and_said(archive, keys, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(keys.private.parent, mine)
    before = (mine / signing.PUBLIC_KEY).read_bytes()
    (mine / signing.PUBLIC_KEY).unlink()
    said = []
    pair = signing.ensure_keys(mine, said.append)
    assert pair.public.read_bytes() == before
    assert signing.verify(archive, pair.public) == keys.fingerprint
    assert "derived from" in said[0]
    assert signing.ensure_keys(mine, said.append) == pair
    assert len(said) == 1


def test_a_public_key_alone_makes_no_pair(tmp_path):
    pair = signing.create_keys(tmp_path)
    pair.private.unlink()
    with pytest.raises(MissingFile, match=r"signing\.key") as missing:
        signing.ensure_keys(tmp_path, print)
    assert "another folder" in missing.value.hint


def test_no_public_key_is_derived_from_what_is_no_private_key(tmp_path):
    pair = signing.create_keys(tmp_path)
    pair.public.unlink()
    pair.private.write_text("not a key")
    with pytest.raises(InvalidKey):
        signing.ensure_keys(tmp_path, print)
    assert not pair.public.exists()


def test_a_key_pair_is_never_replaced(tmp_path):
    pair = signing.create_keys(tmp_path)
    before = pair.private.read_bytes()
    with pytest.raises(EmberlineError, match="not replaced"):
        signing.create_keys(tmp_path)
    assert pair.private.read_bytes() == before


def test_a_file_that_is_no_key_is_refused(archive, tmp_path):
    (tmp_path / "signing.pub").write_text("no key")
    with pytest.raises(InvalidKey):
        signing.verify(archive, tmp_path / "signing.pub")


def test_signing_again_replaces_the_signature_whole(archive, keys):
    archive.write_bytes(b"a new content")
    signing.sign(archive, keys)
    signing.verify(archive, keys.public)
    assert {path.name for path in archive.parent.iterdir()} == {archive.name, signing.signature_of(archive).name}


def test_openssfs_own_command_verifies_the_signature(archive, keys):
    command = [sys.executable, "-m", "model_signing", "verify", "key", archive]
    options = ["--signature", signing.signature_of(archive), "--public_key", keys.public]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
