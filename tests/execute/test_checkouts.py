"""The two checkouts of a time gate: what each side imports, what git keeps, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attnprof import lockstep_worker
from attnprof.errors import UsageError
from attnprof.execute.checkout import Checkout, checkouts, commit_of, localised, orders
from attnprof.gate import timing
from attnprof.gate.timing import time_rows
from attnprof.profiling import loading
from attnprof.records import Placement
from tests.repository import MINE, case, git, worktrees

ROOT = Path(__file__).resolve().parents[2]


def test_the_base_is_the_commit_and_head_the_working_tree(repository: Path) -> None:
    (repository / "mine.py").write_text("changed, not committed")
    (repository / "new.py").write_text("new")
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {repository}/hook-was-run\n")
    hook.chmod(0o755)
    with checkouts(repository / "specs", "HEAD") as (base, head):
        assert (base.tree / "mine.py").read_text().startswith(MINE[:20])
        assert not (base.tree / "new.py").exists()
        assert (head.tree, head.home, base.home) == (repository, repository, repository)
        assert base.commit == git(repository, "rev-parse", "HEAD")
        assert base.moved(repository / "specs" / "x") == base.tree / "specs" / "x"
        assert base.moved(Path("/elsewhere/x")) == Path("/elsewhere/x")
        assert worktrees(repository) == 2
    assert worktrees(repository) == 1
    assert not base.tree.exists()
    assert not base.tree.parent.exists()
    assert not (repository / "hook-was-run").exists()
    assert (repository / "mine.py").read_text() == "changed, not committed"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_the_base_is_removed_whatever_happens(repository: Path, error: type[BaseException]) -> None:
    trees: list[Path] = []

    def leave() -> None:
        with checkouts(repository, "HEAD") as (base, _):
            (base.tree / "mine.py").write_text("dirty")
            trees.append(base.tree.parent)
            raise error

    with pytest.raises(error):
        leave()
    assert not trees[0].exists()
    assert worktrees(repository) == 1


def test_a_cancelled_job_leaves_no_worktree(repository: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from attnprof.execute.checkout import checkouts\n"
        "with checkouts(Path(sys.argv[1]), 'HEAD') as (base, _):\n    print(base.tree, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(repository)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        tree = Path(process.stdout.readline().strip())
        assert tree.is_dir()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    assert not tree.parent.exists()
    assert worktrees(repository) == 1


def test_other_worktrees_keep_what_git_knows_of_them(repository: Path, tmp_path: Path) -> None:
    """One on a disk that is not mounted at the moment has its HEAD and its index in the repository: they stay."""
    disk, unmounted = tmp_path / "disk", tmp_path / "unmounted"
    git(repository, "worktree", "add", "-q", "-b", "topic", str(disk / "base"))  # with the name that ours has
    (disk / "base" / "mine.py").write_text("staged")
    git(disk / "base", "add", "-A")
    disk.rename(unmounted)
    with checkouts(repository, "HEAD") as (base, _):
        assert worktrees(repository) == 3
    with checkouts(repository, "HEAD") as (base, _):  # where git cannot remove ours, for its folder is gone
        shutil.rmtree(base.tree)
    assert worktrees(repository) == 2
    unmounted.rename(disk)
    assert git(disk / "base", "diff", "--cached", "--name-only") == "mine.py"
    assert git(disk / "base", "branch", "--show-current") == "topic"


def test_what_a_killed_gate_left_is_dropped_once_its_folder_is_gone(repository: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from attnprof.execute.checkout import checkouts\n"
        "with checkouts(Path(sys.argv[1]), 'HEAD'):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, str(repository)]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob("attnprof-base-*")
    with checkouts(repository, "HEAD"):
        pass
    assert (left / "base" / "mine.py").is_file()  # of another gate, that may be alive
    assert worktrees(repository) == 2
    shutil.rmtree(left)
    with checkouts(repository, "HEAD"):
        pass
    assert worktrees(repository) == 1
    assert not (repository / ".git" / "worktrees").exists()


def test_what_git_cannot_do_is_a_sentence(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"'nowhere' names no commit of this repository: .*git fetch"):
        commit_of(repository, "nowhere")
    with pytest.raises(UsageError, match="'--all' names no commit"):
        commit_of(repository, "--all")
    plain = tmp_path / "plain"
    plain.mkdir()
    for asked in (lambda: commit_of(plain, "HEAD"), lambda: time_rows([case()], "HEAD", plain)):
        with pytest.raises(UsageError, match="plain is in no git repository"):
            asked()
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", "shallow")
    with pytest.raises(UsageError, match=r"shallow.*fetch-depth: 0"):
        commit_of(tmp_path / "shallow", "HEAD~1")
    monkeypatch.setenv("PATH", str(plain))
    with pytest.raises(UsageError, match="needs git"):
        commit_of(repository, "HEAD")


def test_a_hooks_environment_does_not_lead_elsewhere(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    with checkouts(repository, "HEAD") as (base, _):
        assert (base.tree / "mine.py").is_file()


def test_each_side_imports_from_its_own_checkout(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("built", "src"):
        (repository / name).mkdir()
    monkeypatch.setattr(sys, "path", ["", str(repository / "src"), str(repository / "built"), "/elsewhere"])
    monkeypatch.chdir(repository / "specs")
    base, head = Checkout(tmp_path / "base", repository, "c"), Checkout(repository, repository)
    of_base, of_head = orders(base, head)
    top = str(tmp_path / "base")
    assert of_head["path"] == [str(repository / "specs"), str(repository / "src"), str(repository / "built"), "/elsewhere"]
    assert of_base["path"] == [f"{top}/specs", f"{top}/src", str(repository / "built"), "/elsewhere"]
    assert (of_base["cwd"], of_head["cwd"]) == (f"{top}/specs", str(repository / "specs"))
    assert of_base["kept"] == [str(repository / "built")]
    monkeypatch.chdir("/")
    assert [order["cwd"] for order in orders(base, head)] == [top, str(repository)]


def test_files_are_named_from_where_the_children_run(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = Checkout(repository, repository)
    monkeypatch.chdir(repository / "specs")
    absolute = case("a", f"{repository}/mine.py:Mine")
    assert localised(absolute, head).mechanism == "../mine.py:Mine"
    assert localised(case("a", "../mine.py:Mine"), head).mechanism == "../mine.py:Mine"
    assert localised(case("a", "pkg.mine:Mine"), head).mechanism == "pkg.mine:Mine"
    assert localised(case("a", "spatial/ccnet"), head) == case("a", "spatial/ccnet")
    placed = case("a", host=Placement("../net.py:Net", {}, "layer1"))
    assert localised(placed, head).host == Placement("../net.py:Net", {}, "layer1")
    monkeypatch.chdir("/")
    assert localised(absolute, head).mechanism == "mine.py:Mine"
    assert localised(case("a", "elsewhere/mine.py:Mine"), head).mechanism == "/elsewhere/mine.py:Mine"


def test_a_folder_that_the_base_has_not_leads_to_the_same_file(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spec that is new stands in a new folder: what it names with '..' is in the base all the same."""
    new = repository / "new" / "specs"
    new.mkdir(parents=True)
    monkeypatch.chdir(new)
    with checkouts(new, "HEAD") as sides:
        told = [Path(order["cwd"]) for order in orders(*sides)]
        assert told == [sides[0].tree / "new" / "specs", new]
        for side, folder in zip(sides, told, strict=True):
            named = localised(case("a", f"{repository}/mine.py:Mine"), side).mechanism
            assert named == "../../mine.py:Mine"
            assert (folder / named.partition(":")[0]).resolve() == side.tree / "mine.py"
    shutil.rmtree(repository / "new")
    (repository / "new").write_text("a file in the commit")
    git(repository, "add", "new")
    git(repository, "commit", "-qm", "file")
    (repository / "new").unlink()
    new.mkdir(parents=True)
    monkeypatch.chdir(new)
    with checkouts(new, "HEAD") as (base, head):
        assert [order["cwd"] for order in orders(base, head)] == [str(base.tree), str(new)]
        assert localised(case("a", "../../mine.py:Mine"), base).mechanism == "mine.py:Mine"
        assert localised(case("a", "../../mine.py:Mine"), head).mechanism == "../../mine.py:Mine"


def test_a_folder_is_never_made_outside_of_the_base(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "out").symlink_to(tmp_path)
    git(repository, "add", "out")
    git(repository, "commit", "-qm", "link")
    (repository / "out").unlink()
    (repository / "out" / "specs").mkdir(parents=True)
    monkeypatch.chdir(repository / "out" / "specs")
    with checkouts(repository, "HEAD") as (base, head):
        assert orders(base, head)[0]["cwd"] == str(base.tree)
    assert not (tmp_path / "specs").exists()


def test_what_was_imported_from_the_wrong_checkout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    order = {"home": str(home), "tree": str(tmp_path / "tree"), "kept": [str(home / "built")]}
    stray = type(sys)("stray")
    monkeypatch.setitem(sys.modules, "stray", stray)
    for file in (home / "built" / "stray.py", tmp_path / "tree" / "stray.py", Path("/usr/stray.py")):
        stray.__file__ = str(file)
        lockstep_worker.check_origin(order)
    stray.__file__ = str(home / "pkg" / "stray.py")
    with pytest.raises(lockstep_worker.ForeignCodeError, match=r"'stray' was imported from the working tree, pkg/stray\.py"):
        lockstep_worker.check_origin(order)
    lockstep_worker.check_origin({**order, "tree": str(home)})  # head may


def test_absent_is_not_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "inner.py").write_text("import no_such_package\nclass A: pass\n")
    (tmp_path / "fine.py").write_text("class A: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def found(path: str) -> bool:
        with pytest.raises((UsageError, ModuleNotFoundError)) as caught:
            loading.load(case("a", path))
        return lockstep_worker.is_absent(caught.value, case("a", path))

    assert found("fine:B")
    assert found("gone:A")
    assert found("gone.below:A")
    assert found(f"{tmp_path}/gone.py:A")
    assert not found("inner:A")
    assert not found(f"{tmp_path}/inner.py:A")


@pytest.fixture
def submodule(repository: Path) -> Path:
    """extern/lib, a submodule of the repository that both commits have, with lib/mine.py and lib/pkg/mine.py."""
    other = repository.parent / "other"
    (other / "pkg").mkdir(parents=True)
    for file in (other / "mine.py", other / "pkg" / "mine.py", other / "pkg" / "__init__.py"):
        file.write_text("class Mine: pass\n")
    git(other, "init", "-q")
    git(other, "add", "-A")
    git(other, "commit", "-qm", "other")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "extern/lib")
    git(repository, "commit", "-qm", "submodule")
    return repository / "extern" / "lib"


def test_what_lies_in_a_submodule_is_not_called_new(repository: Path, submodule: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "uses.py").write_text("import pkg.mine\n")
    git(repository, "add", "uses.py")
    git(repository, "commit", "-qm", "uses")
    monkeypatch.chdir(repository)
    monkeypatch.setattr(sys, "path", [str(submodule), str(repository), *sys.path])
    with checkouts(repository, "HEAD") as sides:
        assert sides[0].submodules == (sides[0].tree / "extern" / "lib",)
        order = orders(*sides)[0]
        monkeypatch.chdir(order["cwd"])
        monkeypatch.setattr(sys, "path", order["path"])

        def said(path: str) -> tuple[bool, bool]:
            """(called absent, the submodule is named) of what a fresh child of the base says."""
            for name in [name for name in sys.modules if name.partition(".")[0] in ("extern", "mine", "pkg", "uses")]:
                del sys.modules[name]
            with pytest.raises((UsageError, ImportError)) as caught:
                loading.load(case("a", path))
            event = lockstep_worker.failed(caught.value, case("a", path), order)
            return event["absent"], "'extern/lib', and submodules are not checked out in the base" in event["detail"]

        files = ["extern/lib/mine.py:Mine", "extern/lib/../lib/mine.py:Mine", "uses.py:Mine"]
        modules = ["pkg.mine:Mine", "pkg:Mine", "extern.lib.mine:Mine", "extern.lib:mine", "uses:Mine"]
        for path in [*files, *modules]:
            assert said(path) == (False, True), path
        for path in ("extern/lib/gone.py:Mine", "gone.py:Mine", "gone.below:Mine", "mine.py:Gone", "extern/mine.py:Mine"):
            assert said(path) == (True, False), path


def test_an_import_path_in_a_submodule_hides_nothing_that_git_ignores(
    repository: Path, submodule: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "built").mkdir()
    monkeypatch.setattr(sys, "path", [str(submodule / "pkg"), str(repository / "built")])
    order, _ = orders(Checkout(Path("/base"), repository, "c"), Checkout(repository, repository))
    assert order["path"] == ["/base/extern/lib/pkg", str(repository / "built")]
    assert order["kept"] == [str(repository / "built")]


def test_attnprof_itself_can_be_what_is_gated(tmp_path: Path) -> None:
    """Catalogue and hosts come from the checkout, what measures does not."""
    package = Path(timing.__file__).resolve().parent.parent
    for name in ("mechanisms/channel/se.py", "hosts/resnet.py"):
        copy = tmp_path / "attnprof" / name
        copy.parent.mkdir(parents=True)
        copy.write_text((package / name).read_text(encoding="utf-8") + "\nOF_THE_BASE = True\n", encoding="utf-8")
    code = (
        "import json, sys\nfrom attnprof import lockstep_worker as worker\nworker.enter(json.loads(sys.argv[1]))\n"
        "from attnprof import hosts, mechanisms\nfrom attnprof.hosts import resnet\n"
        "se = sys.modules[mechanisms.load('channel/se').build.__module__]\n"
        "print(se.OF_THE_BASE, resnet.OF_THE_BASE, dict(mechanisms.names()), worker.measure.__file__)\n"
    )
    order = {"home": str(package.parent), "tree": str(tmp_path), "cwd": str(tmp_path), "path": [], "cores": [], "kept": []}
    order["path"] = [str(package.parent), *sys.path]
    command = [sys.executable, "-c", code, json.dumps(order)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=package.parent).stdout.split()
    assert " ".join(said[:-1]) == "True True {'channel': ('se',)}"
    assert said[-1] == str(package / "profiling" / "measuring" / "measure.py")
