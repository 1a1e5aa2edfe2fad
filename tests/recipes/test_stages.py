import json
import os

import pytest

from minissl.errors import ConfigError, MinisslError
from minissl.recipes import stages
from minissl.recipes.stages import Only, Stopped, Watcher, Work


class Listener(Watcher):
    """Remembers what it is told."""

    def __init__(self):
        self.told = []

    def skipped(self, stage):
        self.told.append(("skipped", stage.name))

    def anew(self, stage, changed):
        self.told.append(("anew", stage.name, changed))

    def started(self, stage):
        self.told.append(("started", stage.name))

    def finished(self, stage, result):
        self.told.append(("finished", stage.name))


class Writer:
    """Work that writes a file with a text, and counts its calls."""

    def __init__(self, text):
        self.text = text
        self.calls = 0

    def __call__(self, folder, done):
        self.calls += 1
        (folder / "text").write_text(self.text)
        return {"length": len(self.text)}


def recipe(first, second, option="a"):
    return [
        Work("one", "the first", first, options={"option": option}),
        Work("two", "the second", second, reads=[("one", "text")]),
    ]


def test_each_stage_runs_once_and_its_figures_are_kept(tmp_path):
    first, second = Writer("hello"), Writer("world!")
    stages.run(recipe(first, second), tmp_path)
    listener = Listener()
    done = stages.run(recipe(first, second), tmp_path, listener)
    assert (first.calls, second.calls) == (1, 1)
    assert listener.told == [("skipped", "one"), ("skipped", "two")]
    assert done["one"].figures == {"length": 5} and done["two"].figures == {"length": 6}
    assert done["two"].skipped and done["two"].folder == tmp_path / "two"
    assert done["one"].seconds > 0


def test_a_changed_option_repeats_the_stage_and_what_reads_its_files(tmp_path):
    stages.run(recipe(Writer("hello"), Writer("x")), tmp_path)
    listener, first, second = Listener(), Writer("changed"), Writer("x")
    stages.run(recipe(first, second, option="b"), tmp_path, listener)
    assert listener.told[0] == ("anew", "one", ["option"])
    assert ("anew", "two", ["one/text"]) in listener.told
    assert (first.calls, second.calls) == (1, 1)


def test_a_stage_whose_input_came_out_the_same_is_not_repeated(tmp_path):
    stages.run(recipe(Writer("hello"), Writer("x")), tmp_path)
    first, second = Writer("hello"), Writer("x")
    stages.run(recipe(first, second, option="b"), tmp_path)
    assert (first.calls, second.calls) == (1, 0)


def test_starting_anew_removes_what_the_stage_had_written(tmp_path):
    stages.run(recipe(Writer("hello"), Writer("x")), tmp_path)
    (tmp_path / "one" / "left over").touch()
    stages.run(recipe(Writer("hello"), Writer("x"), option="b"), tmp_path)
    assert not (tmp_path / "one" / "left over").exists()


def test_a_removal_that_is_interrupted_can_be_repeated(tmp_path, monkeypatch):
    stages.run(recipe(Writer("hello"), Writer("world!")), tmp_path)
    (tmp_path / "one" / "more").mkdir()
    with monkeypatch.context() as patch:

        def killed(path):
            raise KeyboardInterrupt

        patch.setattr(stages.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            stages.run(recipe(Writer("hello"), Writer("world!"), "b"), tmp_path)
    done = stages.run(recipe(Writer("again"), Writer("world!"), "b"), tmp_path)
    assert (done["one"].folder / "text").read_text() == "again"
    assert not (tmp_path / "one" / "more").exists()


@pytest.mark.parametrize("reason", [Stopped(130), MinisslError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_stage_is_not_complete_and_keeps_its_files(tmp_path, reason):
    def interrupted(folder, done):
        (folder / "half").touch()
        raise reason

    with pytest.raises(type(reason)):
        stages.run([Work("one", "", interrupted)], tmp_path)
    assert json.loads((tmp_path / "one" / stages.MARKER).read_text())["complete"] is False

    def went_on(folder, done):
        return {"found": (folder / "half").exists()}

    listener = Listener()
    done = stages.run([Work("one", "", went_on)], tmp_path, listener)
    assert listener.told == [("started", "one"), ("finished", "one")]
    assert done["one"].figures == {"found": True}


def test_seconds_add_up_over_interruptions(tmp_path, monkeypatch):
    clock = iter([0.0, 5.0, 100.0, 107.0])
    monkeypatch.setattr(stages.time, "perf_counter", lambda: next(clock))

    def stopped(folder, done):
        raise Stopped(143)

    with pytest.raises(Stopped) as caught:
        stages.run([Work("one", "", stopped)], tmp_path)
    assert caught.value.exit_code == 143
    assert stages.run([Work("one", "", Writer("x"))], tmp_path)["one"].seconds == 12.0


def test_seconds_of_a_process_that_was_killed_are_those_until_its_last_file(tmp_path):
    def killed(folder, done):
        raise Stopped(143)

    with pytest.raises(Stopped):
        stages.run([Work("one", "", killed)], tmp_path)
    # as the start wrote it, and nothing after it
    marker = tmp_path / "one" / stages.MARKER
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "seconds": 50.0}))
    os.utime(marker, (1000.0, 1000.0))
    log = tmp_path / "one" / "log.jsonl"
    log.write_text("{}")
    os.utime(log, (1300.0, 1300.0))
    assert 350 <= stages.run([Work("one", "", Writer("x"))], tmp_path)["one"].seconds < 360


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "precious").write_text("mine")
    with pytest.raises(ConfigError, match="not of this recipe; choose another folder"):
        stages.run(recipe(Writer("a"), Writer("b")), tmp_path)
    assert (tmp_path / "one" / "precious").read_text() == "mine"
    assert not (tmp_path / "one" / "text").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": 1}', "\xff"])
def test_a_damaged_marker_is_named(tmp_path, content):
    stages.run(recipe(Writer("a"), Writer("b")), tmp_path)
    (tmp_path / "one" / stages.MARKER).write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"stage\.json cannot be read; delete"):
        stages.run(recipe(Writer("a"), Writer("b")), tmp_path)


def test_a_watcher_may_be_told_of_some_stages_only(tmp_path):
    listener = Listener()
    for _ in range(2):
        stages.run(recipe(Writer("a"), Writer("b")), tmp_path, Only(listener, ["two"]))
    assert listener.told == [("started", "two"), ("finished", "two"), ("skipped", "two")]
    stages.run(recipe(Writer("c"), Writer("b"), "x"), tmp_path, Only(listener, ["two"]))
    assert listener.told[3:] == [("anew", "two", ["one/text"]), *listener.told[:2]]


def test_two_stages_may_not_share_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="need different names"):
        stages.run([Work("one", "", Writer("a")), Work("one", "", Writer("b"))], tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MinisslError, match="Cannot make the folder"):
        stages.run([Work("one", "", Writer("a"))], tmp_path / "file")
