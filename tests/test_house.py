"""The house stands: names don't collide, packages carry what they need, the stack we are named for is really used."""

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from emberline import assets
from emberline.cli import VERBS

FOLDERS = ("handlers", "k8s", "recipes")


def _run(command, cwd, **env):
    # a make above this test would have the one below print its folder, and take its flags
    foreign = {"PYTHONPATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    environment = {k: v for k, v in os.environ.items() if k not in foreign} | env
    return subprocess.run(
        command,
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def _sources(folder):
    return sorted(path for path in folder.rglob("*.py"))


def test_the_standard_librarys_platform_imports_from_the_repositorys_root(root):
    code = "import platform; print(platform.__file__); assert platform.system() == 'Linux'"
    done = _run([sys.executable, "-c", code], root)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == Path(sysconfig.get_path("stdlib")) / "platform.py"


def test_platform_is_a_plain_folder(root):
    assert [path.name for path in (root / "platform").iterdir() if path.name != "__pycache__"] == ["emberline"]


def test_this_editable_install_reads_the_checkout_and_has_no_copies(root):
    assert not (root / "platform/emberline/_assets").exists()
    for name in FOLDERS:
        assert assets.folder(name) == root / name


@pytest.fixture(scope="module")
def built(tmp_path_factory, root):
    """The sdist, and the wheel made from it: so each holds all that the next needs."""
    out = tmp_path_factory.mktemp("dist")
    done = _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, root], out)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return wheel, sdist


def _tracked(root, folder):
    listed = _run(["git", "ls-files", "-z", folder], root)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout, so which files are ours cannot be told")
    return {name for name in listed.stdout.split("\0") if name and (root / name).is_file()}


@pytest.mark.parametrize("folder", FOLDERS)
def test_wheel_and_sdist_carry_the_folder(built, root, folder):
    wheel, sdist = built
    ours = _tracked(root, folder)
    assert ours
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {f"emberline/_assets/{name}" for name in ours} <= packed
    with tarfile.open(sdist) as archive:
        top = archive.getnames()[0].partition("/")[0]
        assert {f"{top}/{name}" for name in ours} <= set(archive.getnames())


def test_the_wheel_carries_nothing_that_runs_leave_behind(built):
    for name in zipfile.ZipFile(built[0]).namelist():
        assert not re.search(
            r"__pycache__|\.pyc$|\.egg-info|(^|/)(runs|store|keys|state|data)/.*\.(jsonl|mar|key|parquet)$", name
        )
        assert name.startswith(("emberline/", "emberline-"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, built):
    """An empty environment outside the repository with the wheel; dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("elsewhere")
    assert _run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], folder).returncode == 0
    (site,) = (folder / "env/lib").glob("python3*/site-packages")
    installed = _run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            folder / "env/bin/python",
            "install",
            "--no-deps",
            "--no-index",
            built[0],
        ],
        folder,
    )
    assert installed.returncode == 0, installed.stderr
    # a plain path: .pth files beyond it, the editable emberline's too, are not followed
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_a_wheel_elsewhere_finds_its_own_folders(elsewhere):
    code = "from emberline import assets\nfor n in ('handlers', 'k8s', 'recipes'): print(assets.folder(n))"
    done = _run([elsewhere / "env/bin/python", "-c", code], elsewhere)
    assert done.returncode == 0, done.stderr
    found = [Path(line) for line in done.stdout.splitlines()]
    assert len(found) == 3
    assert all(path.is_relative_to(elsewhere) and any(path.iterdir()) for path in found)


def test_a_wheel_elsewhere_has_every_verb(elsewhere):
    done = _run([elsewhere / "env/bin/emberline", "--help"], elsewhere)
    assert done.returncode == 0, done.stderr
    assert all(re.search(rf"\b{verb}\b", done.stdout) for verb in VERBS)


def test_a_wheel_elsewhere_parses_its_recipe_and_preprocesses(elsewhere):
    code = (
        "from pathlib import Path; from emberline.cli.options import DEFAULT_RECIPE, find_recipe\n"
        "from emberline.recipe import load_recipe; from emberline import assets\n"
        "recipe = load_recipe(find_recipe(DEFAULT_RECIPE))\n"
        "apply = assets.handler_module('ember_preprocessing').Preprocessing(recipe.preprocessing.model_dump())\n"
        "print(apply({'pixels': [[0.0] * 8] * 8})[0].shape)\n"
    )
    done = _run([elsewhere / "env/bin/python", "-c", code], elsewhere)
    assert (done.stdout, done.returncode) == ("(1, 8, 8)\n", 0), done.stderr


def test_help_does_not_import_torch():
    code = (
        "import sys; from emberline.cli import app\n"
        "app(['--help'], result_action='return_value')\n"
        "heavy = {'torch', 'sklearn', 'duckdb', 'pyarrow', 'matplotlib', 'kubernetes'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = _run([sys.executable, "-c", code], Path.cwd())
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def verbs_help():
    """Help of all verbs from one process, and whether torch was imported for it."""
    code = (
        "import io, json, sys; from contextlib import redirect_stdout\n"
        "from emberline.cli import VERBS, app\n"
        "told = {}\n"
        "for verb in VERBS:\n"
        "    with redirect_stdout(io.StringIO()) as out:\n"
        "        app([verb, '--help'], result_action='return_value')\n"
        "    told[verb] = out.getvalue()\n"
        "print(json.dumps([told, 'torch' in sys.modules]))"
    )
    done = _run([sys.executable, "-c", code], Path.cwd(), COLUMNS="200")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_verb_explains_itself_without_torch(verbs_help):
    told, with_torch = verbs_help
    assert list(told) == list(VERBS)
    for verb, text in told.items():
        usage, *rest = [line for line in text.splitlines() if line.strip()]
        assert f"emberline {verb}" in usage
        assert len(rest) >= 2, text
    assert not with_torch


@pytest.mark.parametrize(
    ("module", "place", "distribution"),
    [
        ("torch.distributed.elastic", "platform/emberline/train", "torch"),
        ("model_archiver", "platform/emberline/archive", "torch-model-archiver"),
        ("ts", "handlers", "torchserve"),
        ("kubernetes", "platform/emberline/rollout", "kubernetes"),
    ],
)
def test_the_stack_is_imported_where_it_belongs_and_is_a_direct_dependency(root, module, place, distribution):
    users = [path for path in _sources(root / place) if any(_is_in(name, module) for name in _imports(path))]
    assert users, f"nothing under {place} imports {module}"
    elsewhere = [
        path
        for path in _sources(root / "platform")
        if not path.is_relative_to(root / place) and any(_is_in(name, module) for name in _imports(path))
    ]
    assert module == "ts" or not elsewhere  # of ts, the archive asks one rule: how many classes a handler file has
    assert distribution in _dependencies(root)


def _is_in(name, module):
    return name == module or name.startswith(f"{module}.")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _dependencies(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}


def test_recipes_and_experiments_are_read_by_safe_load_alone(root):
    assert "pyyaml" in _dependencies(root)
    for path in _sources(root / "platform/emberline"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"yaml\.(load|full_load|unsafe_load|load_all)\(", text), path
    assert "yaml.safe_load(" in (root / "platform/emberline/recipe/yamlfile.py").read_text()
    experiments = root / "platform/emberline/experiment/folder.py"
    assert "emberline.recipe.read_yaml" in set(_imports(experiments))


def test_every_imported_package_is_declared(root):
    """What a wheel installs elsewhere is what pyproject names, not what happens to lie in this environment."""
    from importlib.metadata import packages_distributions

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    declared = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in (*project["dependencies"], *extras)}
    own = {path.stem for path in (root / "handlers").glob("*.py")} | {"emberline"}
    known = packages_distributions()
    for path in (*_sources(root / "platform"), *_sources(root / "handlers")):
        for name in {full.partition(".")[0] for full in _imports(path)} - set(sys.stdlib_module_names) - own:
            absent = {
                one for one in declared if one == name or one.startswith(f"{name}-")
            }  # as mlflow-skinny is mlflow
            distributions = {one.lower().replace("_", "-") for one in known.get(name, absent)}
            assert distributions & declared, f"{path} imports {name}"


def test_handlers_never_import_emberline(root):
    for path in _sources(root / "handlers"):
        assert not any(_is_in(name, "emberline") for name in _imports(path)), path


def test_every_make_target_is_explained(root):
    text = (root / "Makefile").read_text()
    listed = _run(["make", "help"], root).stdout
    phony = {name for line in re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE) for name in line.split()}
    assert {"demo", "test", "train", "compress", "archive", "serve", "compare", "check", "image", "apply"} <= phony
    for target in phony:
        assert re.search(rf"^  {target} +\S", listed, re.MULTILINE), target


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("demo", ".venv/bin/emberline demo recipes/digits.yaml"),
        ("train", ".venv/bin/emberline train recipes/digits.yaml"),
        ("compress", ".venv/bin/emberline compress recipes/digits.yaml"),
        ("archive", ".venv/bin/emberline archive recipes/digits.yaml"),
        ("serve", ".venv/bin/emberline up recipes/digits.yaml"),
        ("compare", ".venv/bin/emberline compare recipes/digits.experiment.yaml"),
        ("down", ".venv/bin/emberline down"),
        ("doctor", ".venv/bin/emberline doctor"),
    ],
)
def test_make_targets_call_verbs_that_parse(root, target, line):
    from emberline.cli import app

    called = _run(["make", "-n", target], root).stdout.splitlines()[-1].strip()
    assert called == line
    app.parse_args(line.split()[1:], exit_on_error=False, print_error=False)


def test_make_demo_can_leave_it_up(root):
    from emberline.cli import app

    called = _run(["make", "-n", "demo", "KEEP=1"], root).stdout.splitlines()[-1].strip()
    assert called.endswith("--keep")
    app.parse_args(called.split()[1:], exit_on_error=False, print_error=False)


def test_setup_refuses_an_old_python_in_words(root, tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\ncase "$1" in -V) echo Python 3.9.2 ;; *) exit 1 ;; esac\n')
    old.chmod(0o755)
    done = _run([root / "scripts/setup.sh"], root, PYTHON=str(old))
    assert done.returncode == 1
    assert "is Python 3.9.2; Python 3.11 or later is required" in done.stderr
    assert "hint: " in done.stderr


def test_every_installed_pin_is_of_a_package_that_is_needed(root):
    pins = [line for line in (root / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    assert _dependencies(root) <= names
