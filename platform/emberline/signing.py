"""Signatures of archives: OpenSSF model signing with a key pair of one's own.

`<archive>.sig` beside an archive is a Sigstore bundle over its SHA-256, which the `model_signing` command can verify
too: `model_signing verify key <archive> --signature <archive>.sig --public_key signing.pub`.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberline import storage
from emberline.errors import EmberlineError, MissingFile

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

PRIVATE_KEY = "signing.key"
PUBLIC_KEY = "signing.pub"
_MAX_SIGNATURE_BYTES = 1 << 20
_PRIVATE_MODE = 0o600
_STATEMENT = b"application/vnd.in-toto+json"
_PREDICATE = "https://model_signing/signature/v1.0"


class UnsignedArchive(EmberlineError):
    """There is no signature beside the archive."""

    def __init__(self, archive: Path) -> None:
        super().__init__(
            f"is not signed; {signature_of(archive).name} is required beside it",
            place=archive,
            hint="copy its signature along with it; emberline archive makes both; what other tools made is signed by "
            f"`model_signing sign key {archive} --signature {signature_of(archive)} --private_key keys/{PRIVATE_KEY}`",
        )


class AlteredArchive(EmberlineError):
    """The archive is not the file that was signed."""

    def __init__(self, archive: Path, got: str, signed: str) -> None:
        super().__init__(
            f"was altered after it was signed: SHA-256 is {got}; the signature requires {signed}",
            place=archive,
            hint="do not use it; copy it again from where it was made, or make it again by `emberline archive`",
        )


class AlteredSignature(EmberlineError):
    """The signature file itself cannot be trusted."""

    def __init__(self, signature: Path, why: str) -> None:
        super().__init__(
            f"is no valid signature: {why}",
            place=signature,
            hint="copy it again from where it was made, or sign anew by `emberline archive`",
        )


class WrongKey(EmberlineError):
    """The archive was signed with another key than the one given."""

    def __init__(self, archive: Path, got: str, required: str, public_key: Path) -> None:
        super().__init__(
            f"was signed with key {got[:16]}; key {required[:16]} ({public_key}) is required",
            place=archive,
            hint="give the folder with its signer's public key by --keys, if you trust that signer",
        )


class InvalidKey(EmberlineError):
    """A key file holds no key that signs archives."""


@dataclass(frozen=True)
class Keys:
    """A key pair's files.

    Attributes:
        fingerprint: SHA-256 of the public key's PEM, as signatures name it.
    """

    private: Path
    public: Path
    fingerprint: str


def create_keys(folder: Path) -> Keys:
    """Makes a P-256 key pair; the private half is readable by its owner alone.

    Raises:
        EmberlineError: there is one already; a lost private key cannot be made again, so none is ever replaced.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = folder / PRIVATE_KEY, folder / PUBLIC_KEY
    for path in (private, public):
        if path.exists():
            raise EmberlineError("is there already and is not replaced", place=path, hint="name another folder: --keys")
    key = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        file.flush()
        os.fsync(descriptor)
    pem = _pem(key.public_key())
    storage.write_bytes(public, pem)
    return Keys(private, public, hashlib.sha256(pem).hexdigest())


def ensure_keys(folder: Path, say: Callable[[str], None]) -> Keys:
    """The key pair of a folder: made where there is none, its public half derived where only that is missing.

    Raises:
        MissingFile: only the public half is there; a private key cannot be made from it.
        InvalidKey: a file holds no usable key, or the private one can be read by others.
    """
    private, public = folder / PRIVATE_KEY, folder / PUBLIC_KEY
    if not private.exists() and not public.exists():
        pair = create_keys(folder)
        say(f"{pair.public}: made, key {pair.fingerprint[:16]}; keep {pair.private} to yourself")
        return pair
    if private.is_file() and not public.exists():
        _require_private(private)
        storage.write_bytes(public, _public_half(private))
        say(f"{public}: was not there; derived from {private}, so what it signed before still verifies")
    return read_keys(folder)


def _public_half(private: Path) -> bytes:
    """PEM of the public key that belongs to a private one.

    Raises:
        InvalidKey: the file holds no elliptic-curve private key.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    hint = "restore it from a copy, or make a new pair in another folder by `emberline keys --keys FOLDER`"
    try:
        key = serialization.load_pem_private_key(private.read_bytes(), password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise InvalidKey("holds no private key that can be read", place=private, hint=hint) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidKey("is no elliptic-curve key", place=private, hint=hint)
    return _pem(key.public_key())


def _pem(key: "ec.EllipticCurvePublicKey") -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_keys(folder: Path) -> Keys:
    """The key pair of a folder.

    Raises:
        MissingFile: half of it or all is missing.
        InvalidKey: a file holds no usable key, the private one can be read by others, or they do not belong together.
    """
    private, public = folder / PRIVATE_KEY, folder / PUBLIC_KEY
    if not private.is_file():
        lost = f"copy it to there; if it is lost, make a new pair in another folder than {folder}: emberline keys"
        hint = lost if public.exists() else f"emberline keys --keys {folder}"
        raise MissingFile(private, "the private key", hint=hint)
    _require_private(private)
    found = fingerprint(public)
    if found != hashlib.sha256(_public_half(private)).hexdigest():
        hint = f"put the right one there, or remove it and derive it anew: emberline keys --keys {folder}"
        raise InvalidKey(f"is not the public half of {private.name}", place=public, hint=hint)
    return Keys(private, public, found)


def _require_private(private: Path) -> None:
    mode = private.stat().st_mode & 0o777
    if mode & 0o077:
        raise InvalidKey(
            f"can be read by others (mode {mode:o}); {_PRIVATE_MODE:o} is required",
            place=private,
            hint=f"chmod {_PRIVATE_MODE:o} {private}",
        )


def fingerprint(public_key: Path) -> str:
    """What signatures name a public key by.

    Raises:
        MissingFile: there is no such file.
        InvalidKey: it holds no elliptic-curve public key.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not public_key.is_file():
        raise MissingFile(public_key, "the public key", hint=f"emberline keys --keys {public_key.parent}")
    try:
        key = serialization.load_pem_public_key(public_key.read_bytes())
    except ValueError as error:
        raise InvalidKey("holds no public key", place=public_key, hint="emberline keys makes one") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidKey("is no elliptic-curve key", place=public_key, hint="emberline keys makes one")
    return hashlib.sha256(_pem(key)).hexdigest()


def signature_of(archive: Path) -> Path:
    """Where an archive's signature is."""
    return archive.with_name(f"{archive.name}.sig")


def sign(archive: Path, keys: Keys) -> Path:
    """Signs an archive; the signature replaces an older one whole.

    Returns:
        The signature's path.
    """
    from model_signing import signing as openssf

    signature = signature_of(archive)
    partial = signature.with_name(f".{signature.name}.{os.getpid()}.partial")
    try:
        config: Any = openssf.Config()  # type: ignore[no-untyped-call]  # its constructor lacks an annotation
        config.use_elliptic_key_signer(private_key=keys.private).sign(archive, partial)
        storage.write_bytes(signature, partial.read_bytes())
    except ValueError as error:
        raise InvalidKey(str(error), place=keys.private, hint="emberline keys makes one") from error
    finally:
        partial.unlink(missing_ok=True)
    return signature


def verify(archive: Path, public_key: Path) -> str:
    """Checks that an archive is, byte for byte, what the owner of the key signed. Nothing of it is unpacked.

    Returns:
        The key's fingerprint.

    Raises:
        MissingFile: the archive or the key is not there.
        UnsignedArchive, WrongKey, AlteredSignature, AlteredArchive: what exactly is wrong.
    """
    if not archive.is_file():
        raise MissingFile(archive, "the archive", hint="emberline archive makes archives")
    signature = signature_of(archive)
    if not signature.is_file():
        raise UnsignedArchive(archive)
    required = fingerprint(public_key)
    bundle = _read_bundle(signature)
    if bundle.key != required:
        raise WrongKey(archive, bundle.key, required, public_key)
    got = _sha256(archive)
    if got != bundle.signed:
        raise AlteredArchive(archive, got, bundle.signed)
    _check_seal(bundle, signature, public_key)
    return required


def _check_seal(bundle: "_Bundle", signature: Path, public_key: Path) -> None:
    """Checks the key's seal on a bundle, as `model_signing` does.

    Its own verifier is not called, since it loads Sigstore's whole client first, a second of every start of `serve`.

    Raises:
        AlteredSignature: it is not this key's seal on this statement.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_public_key(public_key.read_bytes())
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - `fingerprint` has refused any other
    algorithms: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    # what is sealed, by https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md
    sealed = b"DSSEv1 %d %s %d %s" % (len(_STATEMENT), _STATEMENT, len(bundle.payload), bundle.payload)
    try:
        key.verify(bundle.seal, sealed, ec.ECDSA(algorithms[key.curve.key_size]))
    except InvalidSignature as error:
        raise AlteredSignature(signature, "its content does not match the key's seal") from error


@dataclass(frozen=True)
class _Bundle:
    """A Sigstore bundle of one signed file; unproven until its seal was checked.

    Attributes:
        key: fingerprint of the key that it says sealed it.
        signed: SHA-256 of the file.
    """

    key: str
    signed: str
    payload: bytes
    seal: bytes


def _read_bundle(signature: Path) -> _Bundle:
    if signature.stat().st_size > _MAX_SIGNATURE_BYTES:
        raise AlteredSignature(signature, f"larger than {_MAX_SIGNATURE_BYTES} bytes")
    try:
        bundle: Any = json.loads(signature.read_bytes())
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        statement: Any = json.loads(payload)
        (resource,) = statement["predicate"]["resources"]
        (sealed,) = envelope["signatures"]
        kinds = (envelope["payloadType"].encode(), statement["predicateType"])
        found = _Bundle(
            key=str(bundle["verificationMaterial"]["publicKey"]["hint"]),
            signed=str(resource["digest"]),
            payload=payload,
            seal=base64.b64decode(sealed["sig"], validate=True),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise AlteredSignature(signature, "no Sigstore bundle of one signed file") from error
    if kinds != (_STATEMENT, _PREDICATE):
        raise AlteredSignature(signature, f"of kind {kinds[1]}; {_PREDICATE} is required")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
