"""The buffered reader gives what TorchServe's own reader gives, from the same bytes."""

import json
import socket
import struct
import sys
import threading

import ember_reader
import pytest
import ts
from ember_reader import BufferedReader, retrieve_message
from hypothesis import given, settings
from hypothesis import strategies as st
from ts.protocol.otf_message_handler import retrieve_msg

TEXT = st.text(max_size=20)
CONTENT_TYPES = st.sampled_from(["application/json", "text/plain", "image/png", "", "text/csv; charset=utf-8"])
BODIES = st.one_of(
    st.binary(max_size=300), st.sampled_from([b'{"x": 1}', b"[1, NaN]", b"{", b"\xff", b"", b"a" * 5000])
)
PARAMETERS = st.lists(st.tuples(TEXT, CONTENT_TYPES, BODIES), max_size=3)
REQUESTS = st.lists(st.tuples(TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=3), PARAMETERS), max_size=4)


def field(value):
    content = value if isinstance(value, bytes) else value.encode()
    return struct.pack("!i", len(content)) + content


END = struct.pack("!i", -1)


def frame(requests):
    """A batch as the front end sends it."""
    parts = [b"I"]
    for identity, headers, parameters in requests:
        parts.append(field(identity))
        parts += [field(name) + field(value) for name, value in headers] + [END]
        parts += [field(name) + field(kind) + field(body) for name, kind, body in parameters] + [END]
    return b"".join([*parts, END])


def load_frame(model="digits", gpu=-1):
    return b"".join(
        [
            b"L",
            field(model),
            field("/models/digits"),
            struct.pack("!i", 32),
            field("h.py"),
            struct.pack("!i", gpu),
            field(""),
            struct.pack("!?", True),
        ]
    )


def sent(content):
    """A connection that has received these bytes and then its end."""
    ours, theirs = socket.socketpair()

    def send():
        with theirs:
            theirs.sendall(content)

    threading.Thread(target=send).start()
    return ours


def read_all(content, retrieve, count):
    with sent(content) as connection:
        return [retrieve(connection) for _ in range(count)]


@pytest.mark.parametrize("decode", [None, "true", "false"])
@settings(max_examples=40, deadline=None)
@given(batches=st.lists(REQUESTS, min_size=1, max_size=3), received=st.sampled_from([1, 3, 64, 1 << 18]))
def test_it_reads_what_torchserve_reads_however_the_bytes_arrive(decode, batches, received):
    content = load_frame() + b"".join(frame(batch) for batch in batches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ember_reader, "_RECEIVE_BYTES", received)
        if decode is None:
            patch.delenv("TS_DECODE_INPUT_REQUEST", raising=False)
        else:
            patch.setenv("TS_DECODE_INPUT_REQUEST", decode)
        ours = read_all(content, retrieve_message, 1 + len(batches))
        theirs = read_all(content, retrieve_msg, 1 + len(batches))
    assert repr(plain(ours)) == repr(plain(theirs))  # by text, as NaN equals nothing


def plain(value):
    """bytes and bytearray as the same."""
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return {key: plain(one) for key, one in value.items()} if isinstance(value, dict) else value


def test_a_batch_costs_one_receive_instead_of_one_for_each_field():
    batch = [
        (f"request-{k}", [("content-type", "application/json")], [("body", "application/json", b"{}")])
        for k in range(32)
    ]
    counted = Counted(sent(frame(batch)))
    with counted.connection:
        assert len(retrieve_message(counted)[1]) == 32
    assert counted.receives <= 2  # the kernel may hand over a large frame in two


class Counted:
    """A real connection whose receives are counted."""

    def __init__(self, connection):
        self.connection, self.receives = connection, 0

    def recv(self, size):
        self.receives += 1
        return self.connection.recv(size)


def test_a_front_end_that_is_gone_ends_the_worker_as_torchserve_does():
    half = frame([("one", [], [])])[:-2]
    for retrieve in (retrieve_message, retrieve_msg):
        with sent(half) as connection, pytest.raises(SystemExit) as ended:
            retrieve(connection)
        assert ended.value.code == 0


def test_an_unknown_command_is_refused_as_torchserve_does():
    for retrieve in (retrieve_message, retrieve_msg):
        with sent(b"Xabc") as connection, pytest.raises(ValueError, match="Invalid command"):
            retrieve(connection)


def test_a_new_connection_starts_with_an_empty_buffer():
    first = read_all(frame([("one", [], [])]) + b"rest of another", retrieve_message, 1)
    second = read_all(frame([("two", [], [])]), retrieve_message, 1)
    assert [first[0][1][0]["requestId"], second[0][1][0]["requestId"]] == [b"one", b"two"]


def test_large_fields_pass_whole():
    body = json.dumps(list(range(200_000))).encode()
    with sent(field(body) + b"x") as connection:
        reader = BufferedReader(connection)
        assert reader.field() == body
        assert reader.recv(1) == b"x"


@pytest.fixture
def worker_process(monkeypatch):
    """This process looks like TorchServe's worker to `install`."""
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "TorchModelServiceWorker", object, raising=False)
    monkeypatch.setattr(main, "retrieve_msg", retrieve_msg, raising=False)
    return main


def test_it_is_installed_in_a_worker_of_the_known_version(worker_process):
    assert ember_reader.install()
    assert worker_process.retrieve_msg is retrieve_message


def test_it_is_not_installed_outside_of_a_worker():
    assert not ember_reader.install()


def test_it_is_not_installed_when_switched_off(worker_process, monkeypatch):
    monkeypatch.setenv("EMBERLINE_BUFFERED_READER", "0")
    assert not ember_reader.install()
    assert worker_process.retrieve_msg is retrieve_msg


def test_it_is_not_installed_in_another_version_and_says_so(worker_process, monkeypatch, caplog):
    monkeypatch.setattr(ts, "__version__", "0.13.0")
    assert not ember_reader.install()
    assert worker_process.retrieve_msg is retrieve_msg
    assert "0.13.0" in caplog.text
