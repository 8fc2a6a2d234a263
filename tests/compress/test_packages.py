"""Loading along the fallback chain: what does not fit this machine is passed over, and said."""

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from emberline import assets

loader = assets.handler_module("ember_packages")
assets.handler_module("ember_preprocessing")


@pytest.fixture
def copy(compressed, tmp_path):
    """A copy of the int8 artifact to damage, and what the undamaged one answers to 3 rows."""
    folder = tmp_path / "int8"
    shutil.copytree(compressed.artifacts / "int8", folder)
    return folder


@pytest.fixture(scope="session")
def rows():
    return np.random.default_rng(0).uniform(size=(19, 1, 8, 8)).astype(np.float32)


def load(folder, **changes):
    described = json.loads((folder / "artifact.json").read_bytes())
    described["packages"][0].update(changes)
    said = []
    return loader.load(folder, described, report=said.append), said


def assert_fell_back(folder, reason, **changes):
    model, said = load(folder, **changes)
    assert model.package["backend"] == "exported"
    assert reason in model.skipped[0]
    assert any(line.startswith("passed over int8.pt2") and reason in line for line in said)


def test_the_compiled_package_is_loaded_where_it_fits(copy):
    model, said = load(copy)
    assert model.package["backend"] == "aoti"
    assert model.skipped == ()
    assert said == [line for line in said if line.startswith("loaded int8.pt2")]


def test_a_package_for_another_cpu_is_passed_over(copy):
    assert_fell_back(copy, "this CPU lacks avx9", needs=["avx2", "avx9"])


def test_a_package_of_another_torch_is_passed_over(copy):
    assert_fell_back(copy, "made with torch 2.12.1", torch="2.12.1")


@pytest.mark.parametrize(
    ("level", "left"),
    [
        ("", {"avx2", "avx_vnni", "avx512_vnni"}),
        ("AVX2", {"avx2"}),
        ("avx2_vnni", {"avx2", "avx_vnni"}),
        ("AVX512_CORE", {"avx2"}),
        ("AVX512_CORE_VNNI", {"avx2", "avx_vnni", "avx512_vnni"}),
    ],
)
def test_int8_instructions_that_onednn_may_not_use_are_as_good_as_absent(level, left):
    assert loader.visible_flags(["avx2", "avx_vnni", "avx512_vnni"], level) == left


def test_a_package_that_counts_on_vnni_is_passed_over_where_onednn_may_not_use_it(copy, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert_fell_back(copy, "this CPU lacks avx512_vnni", needs=["avx2", "avx512_vnni"])


def test_the_chain_is_walked_in_order_and_every_step_says_why(copy):
    described = json.loads((copy / "artifact.json").read_bytes())
    portable, exported = described["packages"]
    native = {**portable, "file": "int8.native.pt2", "march": "native", "needs": ["avx9"]}
    onnx = {**portable, "file": "int8.onnx", "backend": "onnx"}
    (copy / "int8.native.pt2").write_bytes(b"for another CPU")
    (copy / "int8.onnx").write_bytes(b"damaged")
    described["packages"] = [native, {**portable, "torch": "1.0"}, onnx, exported]
    said = []
    model = loader.load(copy, described, report=said.append)
    assert model.package["backend"] == "exported"
    assert [line.split(":")[0] for line in model.skipped] == ["int8.native.pt2", "int8.pt2", "int8.onnx"]
    for reason, line in zip(("avx9", "torch 1.0", "cannot be opened"), model.skipped, strict=True):
        assert reason in line
    assert [line for line in said if line.startswith("passed over")] == [
        f"passed over {line}" for line in model.skipped
    ]


def test_a_missing_package_is_passed_over(copy):
    (copy / "int8.pt2").unlink()
    assert_fell_back(copy, "the file is missing")


def test_a_truncated_package_is_passed_over(copy):
    content = (copy / "int8.pt2").read_bytes()
    (copy / "int8.pt2").write_bytes(content[: len(content) // 2])
    assert_fell_back(copy, "cannot be opened")


def test_a_package_with_a_missing_instruction_kills_its_probe_and_nothing_else(copy):
    replace_code_by_illegal_instructions(copy / "int8.pt2")
    assert_fell_back(copy, "the probe died of SIGILL")


def test_the_same_in_a_process_with_threads_which_must_not_fork(copy):
    replace_code_by_illegal_instructions(copy / "int8.pt2")
    done = threading.Event()
    waiting = threading.Thread(target=done.wait)
    waiting.start()
    try:
        assert_fell_back(copy, "the probe died of SIGILL")
    finally:
        done.set()
        waiting.join()


def test_a_probe_that_computes_nothing_hangs_and_one_that_is_only_slow_does_not(monkeypatch):
    probe = assets.handler_module("ember_probe")
    monkeypatch.setattr(probe, "PROBE_STALL_S", 2.0)

    def answer(program):
        done = subprocess.Popen([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE)
        with done:
            content = probe._read_all(done.stdout.fileno(), done.pid)
            done.kill()
        return content

    assert answer("import time; time.sleep(60)") is None
    busy = "import time\nbegin = time.process_time()\nwhile time.process_time() - begin < 3: pass\nprint('here')"
    assert answer(busy) == b"here\n"


def test_a_package_that_answers_the_probe_wrongly_is_passed_over(copy, compressed):
    # the unpruned float package in the int8 one's place: it loads, runs, and is another model
    shutil.copyfile(compressed.artifacts / "fp32" / "fp32.pt2", copy / "int8.pt2")
    assert_fell_back(copy, "answers the probe")


def test_no_usable_package_is_an_error_with_every_reason(copy):
    described = json.loads((copy / "artifact.json").read_bytes())
    for package in described["packages"]:
        package["needs"] = ["avx9"]
    with pytest.raises(loader.NoUsablePackage, match=r"int8.pt2: this CPU lacks avx9; exported.pt2: this CPU lacks"):
        loader.load(copy, described, report=lambda _text: None)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 19])
def test_batches_above_the_largest_go_in_pieces_and_give_the_same_rows(copy, rows, count):
    model, _ = load(copy)
    assert model.package["max_batch"] == 8
    (whole,) = model((rows[:count],))
    one_by_one = np.concatenate([model((rows[i : i + 1],))[0] for i in range(count)])
    np.testing.assert_allclose(whole, one_by_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 1, 8, 8)), np.zeros((2, 8, 8), np.float32), np.zeros((0, 1, 8, 8), np.float32)], ids=repr
)
def test_memory_that_is_no_batch_of_the_model_is_refused(copy, wrong):
    model, _ = load(copy)
    with pytest.raises(ValueError, match="required"):
        model((wrong,))


def test_the_answers_are_close_to_the_float_models(copy, rows):
    compiled, _ = load(copy)
    interpreted, _ = load(copy, needs=["avx9"])
    (got,), (expected,) = compiled((rows,)), interpreted((rows,))
    assert np.linalg.norm(got - expected) < 0.15 * np.linalg.norm(expected)


def test_float_convolutions_come_packed_although_the_batch_is_free(compressed):
    with zipfile.ZipFile(compressed.artifacts / "fp32" / "fp32.pt2") as package:
        wrapper = next(name for name in package.namelist() if name.endswith(".wrapper.cpp"))
        source = package.read(wrapper).decode()
    convolutions = source.count("aoti_torch_cpu_mkldnn__convolution_pointwise(")
    assert convolutions > 1
    assert source.count(".opaque_metadata = {") > convolutions  # each is packed, and the linear layer is anyway


@pytest.mark.parametrize("name", ["fp32/fp32.pt2", "int8/int8.pt2"])
def test_constants_are_put_into_aligned_memory(compressed, tmp_path, name):
    with zipfile.ZipFile(compressed.artifacts / name) as package:
        library = package.extract(next(one for one in package.namelist() if one.endswith(".so")), tmp_path)
    symbols = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    imported = {line.split()[-1].partition("@")[0] for line in symbols.stdout.splitlines()}
    assert {"aligned_alloc", "madvise"} <= imported
    assert "malloc" not in imported


def test_a_load_in_a_fresh_process_imports_no_compiler_and_leaves_nothing_in_tmp(copy, tmp_path):
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    program = (
        f"import sys; sys.path.insert(0, {str(Path(loader.__file__).parent)!r}); import ember_packages as p; "
        f"from pathlib import Path; m = p.load(Path({str(copy)!r}), report=lambda text: None, threads=1); "
        "print(m.package['backend'], any(n.startswith(('torch._dynamo', 'torch._inductor')) for n in sys.modules))"
    )
    environment = {**os.environ, "TMPDIR": str(scratch)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["aoti", "False"]
    assert list(scratch.iterdir()) == []


def replace_code_by_illegal_instructions(package: Path) -> None:
    """Fills the machine code of a package's library with `ud2`, as a CPU sees an instruction it does not have."""
    damaged = package.with_suffix(".damaged")
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(damaged, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            content = bytearray(old.read(entry))
            if entry.filename.endswith(".so"):
                start, size = text_section(bytes(content))
                content[start : start + size] = b"\x0f\x0b" * (size // 2) + b"\x0b" * (size % 2)
            new.writestr(zipfile.ZipInfo(entry.filename), bytes(content))
    damaged.replace(package)


def text_section(library: bytes) -> tuple[int, int]:
    """Offset and size of `.text` in an ELF64 file."""
    (sections,) = struct.unpack_from("<Q", library, 40)
    entry_size, count, names_index = struct.unpack_from("<HHH", library, 58)
    headers = [struct.unpack_from("<IIQQQQ", library, sections + i * entry_size) for i in range(count)]
    names = headers[names_index][4]
    for name, _, _, _, offset, size in headers:
        if library[names + name : names + name + 6] == b".text\0":
            return offset, size
    raise AssertionError("no .text")
