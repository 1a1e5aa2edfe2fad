"""The group of commands: help, loading on demand, and how every command fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import minissl
from minissl import cli
from minissl.errors import MinisslError

ROOT = Path(minissl.__file__).parents[1]
WRITTEN = [name for name in cli.COMMANDS if find_spec(cli.module_of(name))]
HEAVY = ("numba", "scipy", "matplotlib", "google.protobuf", "rich", "safetensors", "pooch")


def python(*arguments, **options):
    options.setdefault("capture_output", True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment, timeout=120, **options
    )


def loaded_by(code):
    watched = (*HEAVY, "numpy", "click")
    program = f"import sys\n{code}\nprint([m for m in {watched} if m in sys.modules])"
    return python("-c", program, text=True).stdout.splitlines()[-1]


def test_import_loads_nothing_heavy():
    assert loaded_by("import minissl") == "[]"


def test_the_list_of_commands_loads_nothing_heavy():
    code = "from minissl.cli import main\nmain(['--help'], standalone_mode=False)"
    assert loaded_by(code) == "['click']"


@pytest.mark.parametrize("name", WRITTEN)
def test_help_loads_nothing_heavy_and_has_an_example(name):
    code = f"from minissl.cli import main\nmain(['{name}', '--help'], standalone_mode=False)"
    assert loaded_by(code) == "['click']"
    result = CliRunner().invoke(cli.main, [name, "--help"])
    assert result.exit_code == 0
    assert f"minissl {name}" in result.stdout.split("Options:")[1]


@pytest.mark.parametrize("name", WRITTEN)
def test_every_option_is_explained(name):
    command = import_module(cli.module_of(name)).command
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    for one in commands:
        options = [param for param in one.params if isinstance(param, click.Option)]
        assert all(option.help for option in options), one.name


def test_help_lists_every_command(run):
    output = run("--help").stdout
    assert all(f"  {name} " in output for name in cli.COMMANDS)
    assert "_MINISSL_COMPLETE" in output


def test_version(run):
    assert minissl.__version__ in run("--version").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["test"],
        ["test", "--model", "a.prototxt"],
        ["flops"],
        ["time", "--model", "lenet.prototxt", "--iterations", "0"],
        ["summary", "lenet.prototxt", "--phase", "BOTH"],
        ["summary", "lenet.prototxt", "--data", "imagenet"],
        ["test", "--model", "a.prototxt", "--weights", "b.npz", "--batch-size", "-1"],
        ["train", "--solver", "lenet_solver.prototxt", "--threads", "many"],
        ["train", "--solver", "lenet_solver.prototxt", "--dtype", "float16"],
        ["data", "fetch", "imagenet"],
        ["compact", "--model", "a.prototxt", "--weights", "b.npz"],
        ["--verbose", "--quiet", "doctor"],
        ["time", "--model", "lenet.prototxt", "--conv-mode", "FASTEST"],
    ],
)
def test_wrong_usage_is_exit_code_2(run, arguments):
    result = run(*arguments, code=2)
    assert "Error: " in result.stderr and result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["test", "--model", "absent.prototxt", "--weights", "absent.npz"],
        ["time", "--model", "absent.prototxt"],
        ["sparsity", "absent.caffemodel"],
        ["sparsity", "absent.unknown"],
        ["flops", "absent.prototxt"],
        ["summary", "absent.prototxt"],
        ["compact", "--model", "absent.prototxt", "--weights", "absent.npz", "--out", "x"],
        ["convert", "absent.caffemodel", "out.npz"],
        ["lint", "absent.prototxt"],
        ["train", "--solver", "absent.prototxt"],
    ],
)
def test_a_missing_file_is_one_sentence(run, arguments):
    result = run(*arguments, code=1)
    assert "absent" in result.stderr and result.stdout == ""
    assert result.stderr.count("\n") == 1


@pytest.fixture
def failing(monkeypatch):
    """Make the command ``doctor`` raise what a test chooses."""

    def choose(error):
        @click.command()
        def command():
            raise error

        module = import_module("minissl.cli.doctor")
        monkeypatch.setattr(module, "command", command)

    return choose


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MinisslError("the cause; the cure"), 1, "Error: the cause; the cure\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
        (MemoryError(), 1, "Error: There is not enough memory"),
        (PermissionError(13, "Permission denied", "a/file"), 1, "Error: a/file: Permission denied"),
        (ValueError("x\ny"), 1, "Error: Unexpected ValueError: x y; please report it"),
        (SystemExit(143), 143, ""),
    ],
)
def test_every_way_to_fail(failing, run, error, code, said):
    failing(error)
    result = run("doctor", code=code)
    assert result.stdout == "" and result.stderr.lstrip("\n").startswith(said)
    assert bool(said) == bool(result.stderr)


@pytest.mark.parametrize("how", [{"env": {"MINISSL_DEBUG": "1"}}, {"flag": "-v"}])
def test_tracebacks_are_shown_when_asked_for(failing, how):
    failing(ValueError("boom"))
    arguments = [how["flag"], "doctor"] if "flag" in how else ["doctor"]
    result = CliRunner().invoke(cli.main, arguments, env=how.get("env"))
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and "ValueError: boom" in result.stderr


@pytest.mark.parametrize("program", [["cli.py"], ["-m", "minissl"]])
def test_it_runs_without_installing(program):
    result = python(*program, "summary", "lenet.prototxt", "--json", cwd=ROOT, text=True)
    assert result.returncode == 0
    assert json.loads(result.stdout)["total"]["parameters"] == 431_080


def test_exit_codes_of_the_real_program():
    assert python("-m", "minissl", "nonsense").returncode == 2
    missing = python("-m", "minissl", "summary", "absent.prototxt", text=True)
    assert missing.returncode == 1 and missing.stderr.startswith("Error: ")


def test_a_closed_pipe_is_quiet():
    process = subprocess.Popen(
        [sys.executable, "-m", "minissl", "summary", "lenet.prototxt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


def test_a_locale_without_unicode(net_file):
    net_file.write_text(net_file.read_text().replace("Digits", "Zählen"), encoding="utf-8")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for encoding in ("ascii", "latin-1"):
        result = python(
            "-m", "minissl", "summary", net_file, env={**env, "PYTHONIOENCODING": encoding}
        )
        assert result.returncode == 0, result.stderr
        # click takes ASCII for a mistake in the set-up and writes UTF-8
        text = result.stdout.decode("utf-8" if encoding == "ascii" else encoding)
        assert "conv1" in text and "Zählen in phase TEST" in text and "─" not in text


def test_completion_offers_commands_options_and_data_sets():
    env = {"_MINISSL_COMPLETE": "bash_complete"}

    def offered(words):
        line = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        program = "from minissl.cli import main; main(prog_name='minissl')"
        return python("-c", program, env={**env, **line}, text=True).stdout

    assert "sparsity" in offered("minissl spar")
    assert "--conv-mode" in offered("minissl time --conv")
    assert "mnist-small" in offered("minissl data info mnist-s")
