"""A user's own handler is tried as TorchServe will, before it is packed."""

import re
import textwrap

import pytest

from emberline.archive.handler import UnusableHandler
from emberline.archive.store import write_archive
from emberline.archivefile import read_archive
from emberline.errors import InvalidSetting, MissingFile

OWN = """
    class Mine:
        def initialize(self, context):
            self.ready = True
        def handle(self, data, context):
            return ["hello" for _ in data]
"""


@pytest.fixture
def archive(artifact, settings, keys, tmp_path):
    """Archives with a handler file of the given text."""

    def write(text, name="my_handler.py"):
        (tmp_path / name).write_text(textwrap.dedent(text))
        own = settings.model_copy(update={"handler": name})
        return write_archive(artifact, own, tmp_path / "tiny.yaml", store=tmp_path / "store", keys=keys)

    return write


def test_the_guides_handlers_are_accepted(archive, root):
    guide = (root / "docs" / "guides" / "handlers.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        archive(block)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("['hello' for _ in data]", "hello"),
        ("[b'[1.5, null]' for _ in data]", [1.5, None]),
        ("[{'a': [1]} for _ in data]", {"a": [1]}),
        ("[str(__import__('time').monotonic_ns()) for _ in data]", {}),
    ],
)
def test_what_a_users_handler_answers_to_the_probe_is_expected_of_it(archive, answers, expected):
    info = read_archive(archive(OWN.replace('["hello" for _ in data]', answers)).path)
    assert info.probe.answer == expected


def test_a_users_handler_is_packed(archive):
    info = read_archive(archive(OWN).path)
    assert info.handler == "my_handler.py"
    assert {"my_handler.py", "ember_handler.py"} <= set(info.files)
    assert "tensor_handler.py" not in info.files


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nonesuch", "cannot be imported: ModuleNotFoundError: No module named 'nonesuch'"),
        ("class Mine(", "cannot be imported: SyntaxError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("import os; os._exit(1)", "ended the process that imported it"),
        ("import emberline" + textwrap.dedent(OWN), "imports emberline"),
        ("x = 1", r"defines 0 classes \(none\)"),
        ("class Error(Exception): pass\n" + textwrap.dedent(OWN), r"defines 2 classes \(Error, Mine\)"),
        ("class Mine:\n    def handle(self, data, context): ...", "Mine has no method initialize"),
        ("class Mine:\n    def initialize(self, context): ...", "Mine has no method handle"),
        (
            "class Mine:\n    def initialize(self, context): ...\n    def handle(self, data): ...",
            r"Mine\.handle cannot be called with data, context",
        ),
        (
            "class Mine:\n    def initialize(self, context): ...\n    def handle(self, data, context): return 1 / 0",
            "does not answer the artifact's probe: ZeroDivisionError: division by zero",
        ),
        (
            textwrap.dedent(OWN).replace("self.ready = True", "raise OSError('no GPU')"),
            "does not answer the artifact's probe: OSError: no GPU",
        ),
        (
            "import ember_handler as e\nclass M(e.EmberHandler):\n def body(self, _): raise e.InvalidInput('x', 'no')",
            "does not answer the artifact's probe: 400: .*x: no",
        ),
        (
            textwrap.dedent(OWN) + "    def __init__(self, path): ...",
            "cannot be made without arguments",
        ),
    ],
)
def test_a_handler_torchserve_would_stumble_over_is_refused_with_the_reason(archive, tmp_path, text, reason):
    with pytest.raises(UnusableHandler, match=reason):
        archive(text)
    assert not list((tmp_path / "store").glob("*.mar"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("image_classifier.py", "one of TorchServe's own handlers"),
        ("ember_handler.py", "a file of emberline's"),
        ("tensor_handler.py", "a file of emberline's"),
        ("my-handler.py", "no name of a Python module"),
        ("handler.txt", "no name of a Python module"),
    ],
)
def test_a_file_name_that_would_be_taken_for_another_is_refused(archive, name, reason):
    with pytest.raises(UnusableHandler, match=reason):
        archive(OWN, name)


def test_a_handler_that_is_not_there_is_named(artifact, settings, keys, tmp_path):
    gone = settings.model_copy(update={"handler": "gone.py"})
    with pytest.raises(MissingFile, match=r"gone\.py"):
        write_archive(artifact, gone, tmp_path / "tiny.yaml", store=tmp_path / "store", keys=keys)


def test_an_image_handler_for_a_model_without_images_is_refused(artifact, settings, keys, tmp_path):
    wrong = settings.model_copy(update={"handler": "image"})
    with pytest.raises(InvalidSetting, match=r"archive\.handler"):
        write_archive(artifact, wrong, tmp_path / "tiny.yaml", store=tmp_path / "store", keys=keys)
