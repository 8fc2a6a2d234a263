"""Archives are read in the belief that their maker means harm."""

import contextlib
import io
import json
import stat
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emberline import archivefile
from emberline.archivefile import BrokenArchive, HostileArchive, read_archive
from emberline.errors import MissingFile

MANIFEST = json.dumps({"model": {"modelName": "tiny", "modelVersion": "1.0", "handler": "h.py"}})


@pytest.fixture
def make(tmp_path):
    """Writes an archive with further entries, given as (name or ZipInfo, content)."""

    def write(*entries, manifest=MANIFEST, compression=zipfile.ZIP_STORED):
        path = tmp_path / "tiny.mar"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in entries:
                archive.writestr(name, content, compression)
            if manifest is not None:
                archive.writestr("MAR-INF/MANIFEST.json", manifest)
        return path

    return write


def entry(name, mode=0o100644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_of_another_tool_is_described_by_its_manifest(make, compression):
    info = read_archive(make(("h.py", "pass"), ("weights/", ""), ("weights/one", b"0" * 5000), compression=compression))
    assert (info.model, info.version, info.handler) == ("tiny", "1.0", "h.py")
    assert (info.artifact, info.lineage, info.probe, info.card) == (None, None, None, {})
    assert info.size_bytes == 5000 + 4 + len(MANIFEST)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.py", "leads out"),
        ("a/../../evil.py", "leads out"),
        ("a/..", "leads out"),
        ("./a", "leads out"),
        ("a//b", "leads out"),
        ("/etc/passwd", "absolute"),
        ("C:/evil.py", "absolute or foreign"),
        ("..\\evil.py", "absolute or foreign"),
        ("a\nb", "control characters"),
    ],
)
def test_an_entry_that_would_be_written_elsewhere_is_refused(make, name, reason):
    with pytest.raises(HostileArchive, match=reason):
        read_archive(make((name, "x")))


def test_a_name_with_a_nul_byte_is_refused(make):
    path = make(("abcdefgh", "x"))
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abc\0efgh"))
    with pytest.raises(HostileArchive, match="control characters"):
        read_archive(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_special_files_are_refused(make, kind):
    with pytest.raises(HostileArchive, match="link or a special file"):
        read_archive(make((entry("link", kind | 0o777), "/etc/passwd")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["h.py", "h.py/"])
def test_a_name_that_is_there_twice_is_refused(make, name):
    with pytest.raises(HostileArchive, match="twice"):
        read_archive(make(("h.py", "good"), (name, "" if name.endswith("/") else "evil")))


def test_a_bomb_is_refused_by_its_declared_ratio(make):
    path = make(("zeros", bytes(20 << 20)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(HostileArchive, match="200 times its size"):
        read_archive(path)


def test_a_bomb_that_declares_less_than_it_is_is_refused(make):
    real = 5 << 20
    path = make(("zeros", bytes(real)), compression=zipfile.ZIP_DEFLATED)
    content = path.read_bytes().replace(struct.pack("<I", real), struct.pack("<I", 100))
    content = content.replace(struct.pack("<I", zlib.crc32(bytes(real))), struct.pack("<I", zlib.crc32(bytes(100))))
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.read("zeros")) == 100, "Python itself does not notice"
    with pytest.raises(HostileArchive, match="does not unpack to the size it declares"):
        read_archive(path)


def test_many_large_files_are_refused_by_their_sum(make, monkeypatch):
    monkeypatch.setattr(archivefile, "MAX_TOTAL_BYTES", 1000)
    with pytest.raises(HostileArchive, match="at most 1000"):
        read_archive(make(("a", b"x" * 600), ("b", b"x" * 600)))


def test_too_many_entries_are_refused(make, monkeypatch):
    monkeypatch.setattr(archivefile, "MAX_ENTRIES", 50)
    with pytest.raises(HostileArchive, match="at most 50"):
        read_archive(make(*((f"file{k}", "") for k in range(60))))


@pytest.mark.parametrize(
    "name", ["MAR-INF/MANIFEST.json", "artifact.json", "lineage.json", "model-card.json", "probe.json"]
)
def test_a_huge_document_is_refused_before_it_is_read(make, name):
    huge = json.dumps({"model": "x" * archivefile.MAX_DOCUMENT_BYTES})
    path = make(manifest=huge) if name == "MAR-INF/MANIFEST.json" else make((name, huge))
    with pytest.raises(HostileArchive, match="at most"):
        read_archive(path)


def test_encrypted_entries_are_refused(make):
    path = make(("h.py", "pass"))
    content = bytearray(path.read_bytes())
    content[6] |= 1  # flags of the first local header
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(HostileArchive, match="encrypted"):
        read_archive(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_java_does_not_unpack_are_refused(make, method):
    with pytest.raises(HostileArchive, match="stored or deflated"):
        read_archive(make(("h.py", "pass"), compression=method))


def local_entry(name, content):
    """An entry as it stands in the file, without a line in the directory."""
    header = struct.pack(
        "<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 33, zlib.crc32(content), len(content), len(content), len(name), 0
    )
    return header + name + content


def test_an_entry_that_only_a_sequential_reader_would_find_is_refused(make):
    path = make(("h.py", "pass"))
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    hidden = local_entry(b"../evil.py", b"evil")
    end = content.index(b"PK\x05\x06")
    moved = content[end : end + 16] + struct.pack("<I", directory + len(hidden)) + content[end + 20 :]
    path.write_bytes(content[:directory] + hidden + content[directory:end] + moved)
    with zipfile.ZipFile(path) as archive:
        assert "../evil.py" not in archive.namelist(), "Python itself does not see it"
    with pytest.raises(HostileArchive, match="between its last entry and its directory"):
        read_archive(path)


def test_an_entry_in_front_of_the_first_is_refused(make):
    path = make(("h.py", "pass"))
    path.write_bytes(local_entry(b"../evil.py", b"evil") + path.read_bytes())
    with pytest.raises(HostileArchive, match="does not follow"):
        read_archive(path)


def test_an_entry_of_another_name_than_the_directory_says_is_refused(make):
    path = make(("good/name.py", "pass"))
    path.write_bytes(path.read_bytes().replace(b"good/name.py", b"../evil/x.py", 1))
    with pytest.raises(HostileArchive, match="another thing in the directory"):
        read_archive(path)


def test_bytes_behind_the_directory_are_refused(make):
    path = make()
    whole = path.read_bytes()
    for behind in (b"\0", b"#!/bin/sh\n", b"PK\x05\x06" + bytes(10)):
        path.write_bytes(whole + behind)
        with pytest.raises((HostileArchive, BrokenArchive), match=r"bytes follow its directory|no whole zip"):
            read_archive(path)


def test_entries_that_share_their_data_are_refused(make):
    path = make(("aaaa", b"x" * 50), ("bbbb", b"x" * 50))
    content = bytearray(path.read_bytes())
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    content[second + 42 : second + 46] = struct.pack("<I", 0)  # its offset: the first entry's
    path.write_bytes(content)
    with pytest.raises((HostileArchive, BrokenArchive)):
        read_archive(path)


def test_data_descriptors_as_java_writes_them_are_read(tmp_path):
    class Unseekable(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise OSError

        def tell(self):
            raise OSError

    file = Unseekable()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("h.py", "pass" * 1000)
        archive.writestr("MAR-INF/MANIFEST.json", MANIFEST)
    path = tmp_path / "streamed.mar"
    path.write_bytes(file.getvalue())
    assert read_archive(path).model == "tiny"


@pytest.mark.parametrize(
    "manifest",
    [None, "", "[]", "{}", '{"model": 1}', '{"model": {"modelName": "tiny"}}', "{broken"],
)
def test_an_archive_without_a_usable_manifest_is_refused(make, manifest):
    with pytest.raises(BrokenArchive):
        read_archive(make(("h.py", "pass"), manifest=manifest))


@pytest.mark.parametrize("name", ["../../etc", "", "a b", "a/b", None, 7, "x\n"])
def test_a_model_name_that_is_no_plain_name_is_refused(make, name):
    with pytest.raises(HostileArchive, match="plain name"):
        read_archive(
            make(manifest=json.dumps({"model": {"modelName": name, "modelVersion": "1.0", "handler": "h.py"}}))
        )


def test_an_artifact_description_that_cannot_be_read_is_refused_by_its_key(make):
    with pytest.raises(BrokenArchive, match=r"artifact\.json: .*required"):
        read_archive(make(("artifact.json", "{}")))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_zip_is_refused(tmp_path, content):
    path = tmp_path / "x.mar"
    path.write_bytes(content)
    with pytest.raises(BrokenArchive):
        read_archive(path)


def test_a_missing_file_is_said_by_name(tmp_path):
    with pytest.raises(MissingFile, match=r"gone\.mar"):
        read_archive(tmp_path / "gone.mar")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_a_damaged_archive_is_read_or_refused_and_nothing_else(tmp_path_factory, damages, compression):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("h.py", "pass" * 20)
        archive.writestr("MAR-INF/MANIFEST.json", MANIFEST)
    content = bytearray(file.getvalue())
    for position, value in damages:
        content[position % len(content)] = value
    path = tmp_path_factory.mktemp("damaged") / "x.mar"
    path.write_bytes(content)
    with contextlib.suppress(HostileArchive, BrokenArchive):
        read_archive(path)
