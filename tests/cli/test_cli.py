"""The command line: quick help, exit codes, errors without tracebacks."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from emberline.cli import VERBS


def emberline(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emberline.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_the_list_of_verbs_shows_each_docstring() -> None:
    done = emberline("--help")
    assert done.returncode == 0
    for verb in VERBS:
        line = next(line for line in done.stdout.splitlines() if f" {verb} " in line)
        assert len(line.replace("│", "").split()) > 3, line


def test_help_shows_the_defaults_that_say_something() -> None:
    text = emberline("tune", "--help").stdout + emberline("train", "--help").stdout
    assert "[default: ()]" not in text
    assert '[default: ""]' not in text
    assert "[default: 8, 32]" in text
    assert "[default: 1:1]" in text


@pytest.mark.parametrize("arguments", [("trian",), ("trian", "x.yaml", "--runs", "r")])
def test_an_unknown_verb_is_wrong_usage_and_the_nearest_is_named(arguments: tuple[str, ...]) -> None:
    done = emberline(*arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: there is no verb 'trian'", "hint: did you mean 'train'?"]


@pytest.mark.parametrize(
    ("line", "fact", "hint"),
    [
        ("show", "", "emberline show --help"),
        ("train --no-such-option", "", "emberline train --help"),
        ("serve --port many", "", "emberline serve --help"),
        ("simulate --rate 0", "simulate: --rate is 0.0; a number above 0 is required", "100 sends a hundred requests"),
        (
            "simulate --rate nan",
            "simulate: --rate is nan; a number above 0 is required",
            "100 sends a hundred requests",
        ),
        ("route --holdout nan", "--holdout: share is nan; 0, or from 0.0001 to below 1", "one unit in twenty"),
        ("route --processes 0", "--processes is 0; a number from 1 to", "keep the port open"),
        ("route --max-requests 0", "--max-requests is 0; a whole number from 1 to", "1024"),
        ("route --requests-per-s 0", "--requests-per-s is 0; a whole number from 1 to", "no limit"),
        ("route --requests-per-s -5", "--requests-per-s is -5; a whole number from 1 to", "no limit"),
        ("route --unit-requests-per-s 0", "--unit-requests-per-s is 0; a whole number from 1 to", "no limit"),
        ("route --max-body-bytes -1", "--max-body-bytes is -1; a whole number from 1 to", "8388608"),
        ("route --timeout-s 0", "--timeout-s is 0.0; more than 0", "10 is taken"),
        ("route --timeout-s nan", "--timeout-s is nan; more than 0", "10 is taken"),
        ("route --timeout-s inf", "--timeout-s is inf; more than 0", "10 is taken"),
        ("route --generation-s 0", "--generation-s is 0.0; more than 0", "60 is taken"),
        ("route --keep 0s", "--keep is '0s'; a duration above 0", "90s"),
        ("route --samples 0d", "--samples is '0d'; a duration above 0", "90s"),
        ("route --experiments nosuch", "--experiments is 'nosuch'; a folder that is there", "make it first"),
        ("outcomes x.parquet --data nosuch", "--data is 'nosuch'; a router's folder, with unit.key", "--new"),
        ("rollout --interval soon", "--interval is 'soon'; a duration is required", "90s, 10m, 2h or 7d"),
        ("serve .", "ARCHIVES is '.'; a file NAME.mar is required", "emberline serve --store ."),
        ("rollout --namespace prod", "--namespace is 'prod'; --kubernetes beside it", "add --kubernetes"),
        ("rollout --interval 0s", "--interval is '0s'; a duration above 0 is required", "90s"),
        ("simulate --url http://127.0.0.1:99999", "--url is 'http://127.0.0.1:99999'; an address", "emberline up"),
        ("load --rate 1 --url localhost", "--url is 'localhost'; an address with http://", "emberline up"),
        ("load --rate 1 --url https://localhost", "--url is 'https://localhost'; plain HTTP", "TLS"),
        ("load --rate 1 --max-connections 0", "--max-connections is 0; 1 or more", ""),
        ("load --rate 1 --seed=-1", "--seed is -1; 0 or more", ""),
        ("load --rate 1 --timeout-s 0", "--timeout-s is 0.0; 0.001 or more", ""),
        ("load --rate 0.1 --seconds 1", "--rate is '0.1 for 1 s'; 1 to 10,000,000 requests", "--seconds"),
        ("load --rate 1e9", "--rate is '1e+09 for 30 s'; 1 to 10,000,000 requests", "--seconds"),
        ("tune int8 --workers 0", "--workers is 0; 1 or more", ""),
        ("tune int8 --delay-ms=-1", "--delay-ms is -1; 0 or more", ""),
        ("tune int8 --connections 0", "--connections is 0; 1 or more", ""),
        ("tune int8 --p99-ms nan", "--p99-ms is nan; 0.001 or more", ""),
        ("route --port 70000", "--port is 70000; a number from 0 to 65535", "0 picks a free one"),
        ("route --admin-port=-1", "--admin-port is -1; a number from 0 to 65535", "0 picks a free one"),
        ("route --host localhost", "--host is 'localhost'; an IP address", "127.0.0.1"),
        ("route --jwks keys.json", "--jwt-issuer is not given; who issues the tokens is required", "a token's `iss`"),
        ("route --jwt-issuer us", "--jwks is not given; the file of the keys", "asked for with --jwks alone"),
    ],
)
def test_wrong_usage_exits_with_2_and_a_hint(line: str, fact: str, hint: str) -> None:
    done = emberline(*line.split())
    assert done.returncode == 2, done.stderr
    error, _, remedy = done.stderr.partition("\nhint: ")
    assert error.startswith("error: ")
    assert fact in error
    assert hint in remedy


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"keys": []}', '{"keys": ["a"]}', '{"key": "x"}', '{"keys": [{"kty": "RSA"}]}']
)
def test_a_file_of_token_keys_that_holds_none_is_wrong_usage(content: str, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(content)
    done = emberline("route", "--jwks", "jwks.json", "--jwt-issuer", "us", cwd=tmp_path)
    assert done.returncode == 2
    assert "--jwks is 'jwks.json'; a file of JSON Web Keys is required" in done.stderr
    assert "hint: JSON such as" in done.stderr


def test_a_certificate_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("none")
    done = emberline("route", "--port", "0", "--tls-cert", "tls.crt", "--tls-key", "tls.crt", cwd=tmp_path)
    assert done.returncode == 2
    assert "a certificate in PEM and its own key, without a password" in done.stderr
    assert "hint: both files are replaced by a renewal" in done.stderr


@pytest.mark.parametrize("verb", ["train", "compress", "archive"])
def test_a_recipe_that_is_not_there_is_one_clear_line(verb: str, tmp_path: Path) -> None:
    done = emberline(verb, "nosuch.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: nosuch.yaml: the recipe is not there"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "--keys", "afile"),
        ("keys", "--keys", "afile/below"),
        ("train", "recipes/digits.yaml", "--runs", "afile"),
    ],
)
def test_an_output_folder_that_is_a_file_is_one_clear_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "afile").touch()
    done = emberline(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "error: afile: is a file; a folder is required",
        "hint: name another folder",
    ]


def test_a_folder_that_the_system_does_not_let_be_made_is_one_clear_line() -> None:
    done = emberline("keys", "--keys", "/proc/x")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: /proc/x: cannot be read or written: no such file or directory",
        "hint: name another one, where files can be made",
    ]


def test_show_tells_an_altered_paper_by_name(tmp_path: Path) -> None:
    from emberline.paper import write_paper

    with write_paper(tmp_path / "run", "run") as draft:
        (draft.folder / "a.bin").write_bytes(b"content")
    assert "verified: 1 files" in emberline("show", str(tmp_path / "run")).stdout
    (tmp_path / "run/a.bin").write_bytes(b"Content")
    done = emberline("show", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "a.bin" in done.stderr


def test_show_prints_a_recipe_as_yaml_and_a_checkpoint_with_its_run(tmp_path: Path) -> None:
    from emberline.paper import write_paper
    from emberline.recipe import load_recipe, read_yaml
    from emberline.train.folder import prepare_folder, training_digest

    path = Path(__file__).parents[2] / "recipes/digits.yaml"
    lines = emberline("show", str(path)).stdout.splitlines()
    assert yaml.safe_load("\n".join(line for line in lines[1:-1])) == read_yaml(path)
    recipe = load_recipe(path)
    prepare_folder(tmp_path / "digits", recipe, 1)
    with write_paper(tmp_path / "digits/checkpoints/step-1", "checkpoint", recipe=training_digest(recipe)):
        pass
    shown = emberline("show", "step-1", cwd=tmp_path / "digits/checkpoints").stdout
    assert f"from run digits  (training {training_digest(recipe)})" in shown


def test_doctor_names_what_is_lacking_and_its_cost() -> None:
    done = emberline("doctor")
    assert done.returncode == 0, done.stdout
    for subject in ("system", "cpu", "g++", "java", "envoy", "gpu"):
        assert any(line[6:].startswith(subject) for line in done.stdout.splitlines()), subject


def test_doctor_leaves_out_the_int8_instructions_that_onednn_is_told_not_to_use(monkeypatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    line = next(one for one in emberline("doctor").stdout.splitlines() if one[6:].startswith("cpu"))
    assert "under ONEDNN_MAX_CPU_ISA=AVX2" in line
    assert "vnni" not in line
