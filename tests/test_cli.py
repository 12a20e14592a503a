from __future__ import annotations

import errno
import io
import json
import os
import resource
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import edgekit
from edgekit.cli import app as cli
from edgekit.cli.views.console import report_view
from edgekit.errors import (
    DataError,
    DiskFullError,
    Interrupted,
    MissingExtraError,
    RecipeError,
    StageError,
    WorkloadError,
)
from edgekit.progress import Event
from edgekit.report import Report

HEAVY = ("torch", "numpy", "onnx", "nncf", "sklearn")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), prog_name="edgekit")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, where the standard streams are real."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


def report() -> Report:
    figures = {
        "accuracy": 0.9105,
        "parameters": 120_000,
        "macs": 20_000_000,
        "agreement": 0.995,
        "parity": 1.0,
    }
    return Report.model_validate(
        {
            "workload": "toy",
            "recipe": "mobile",
            "baseline": {"accuracy": 0.9173, "parameters": 269_722, "macs": 40_550_000},
            "stages": [
                {**figures, "kind": "distill", "seconds": 0, "changed": False},
                {**figures, "kind": "prune", "seconds": 3},
            ],
            "artifacts": [
                artifact("original-fp32.onnx", size_bytes=1_100_000, **{**figures, "accuracy": 0.9173}),
                artifact("model-int8.tflite", size_bytes=150_000, **figures),
                artifact("model-int8.onnx", size_bytes=160_000, **figures),
            ],
            "measurements": [
                measured("original-fp32.onnx", "onnxruntime", 1, 840_000, 1.0),
                measured("original-fp32.onnx", "onnxruntime", 2, 500_000, 1.0),
                measured("model-int8.tflite", "litert", 1, 210_000, 4.0),
                measured("model-int8.tflite", "litert", 2, 160_000, 3.125),
            ],
            "failures": [
                {
                    "artifact": "model-int8.onnx",
                    "device": "local",
                    "runtime": "onnxruntime",
                    "threads": 1,
                    "error": "the runtime crashed",
                }
            ],
            "recommended": {
                "artifact": "model-int8.tflite",
                "runtime": "litert",
                "reason": "fastest within 1 point",
            },
            "warnings": [{"kind": "slower", "about": "x", "message": "int8 is slower than fp32"}],
            "reference": "original-fp32.onnx",
            "folder": "runs/toy",
        }
    )


def artifact(file: str, **rest: Any) -> dict[str, Any]:
    form = "onnx" if file.endswith("onnx") else "litert"
    precision = "int8" if "int8" in file else "fp32"
    coverage = 1.0 if precision == "int8" else None
    return {
        "file": file,
        "format": form,
        "precision": precision,
        "sha256": "0",
        "int8_coverage": coverage,
        **rest,
    }


def measured(file: str, runtime: str, threads: int, p50_ns: int, faster: float) -> dict[str, Any]:
    return {
        "artifact": file,
        "device": "local",
        "runtime": runtime,
        "threads": threads,
        "p50_ns": p50_ns,
        "p90_ns": p50_ns + 20_000,
        "samples": 100,
        "faster": faster,
    }


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Puts a function in the place of ``edgekit.pipeline.compress``."""

    def replace(compress: Callable[..., Any]) -> None:
        module = types.ModuleType("edgekit.pipeline")
        module.compress = compress  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "edgekit.pipeline", module)

    return replace


def fails_with(error: BaseException) -> Callable[..., Any]:
    def compress(*_: Any, **__: Any) -> Any:
        raise error

    return compress


# --- instant ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["compress", "--help"], ["recipe", "ls"], ["recipe", "show", "quick"]],
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    done = python(
        f"import sys; sys.argv = ['edgekit', *{arguments!r}]\n"
        "from edgekit.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        f"print([n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert done.stdout


@pytest.mark.parametrize(
    "module",
    ["edgekit", "edgekit.recipe", "edgekit.stages", "edgekit.cli.views.console", "edgekit.errors"],
)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    done = python(f"import sys, {module}; print([n for n in {HEAVY!r} if n in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_help_is_instant() -> None:
    """Processor time, the best of a few: the clock on the wall tells how busy the machine is."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "edgekit", "--help"], capture_output=True, timeout=60, check=True
        )
        assert b"compress" in done.stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3


def test_the_public_names_are_there() -> None:
    assert dir(edgekit) == sorted(edgekit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        _ = edgekit.compres
    assert edgekit.EdgekitError is __import__("edgekit.errors").errors.EdgekitError


def test_version() -> None:
    assert call("--version").stdout == f"edgekit {edgekit.__version__}\n"


def test_a_mistyped_option_gets_the_nearest_one() -> None:
    result = call("compress", "--recip", "mobile")
    assert result.exit_code == 2
    assert "--recipe" in result.stderr


# --- recipe ----------------------------------------------------------------------------------------------


def test_recipe_ls_lists_what_show_shows() -> None:
    rows = json.loads(call("recipe", "ls", "--json").stdout)
    table = call("recipe", "ls").stdout
    for row in rows:
        assert row["name"] in table
        assert row["description"] in table
        assert call("recipe", "show", row["name"]).stdout == Path(row["path"]).read_text(encoding="utf-8")


def test_recipe_show_effective_can_be_loaded_again(tmp_path: Path) -> None:
    text = call("recipe", "show", "mobile", "--effective", "--set", "stages.prune.speedup=3").stdout
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    assert "speedup: 3.0" in text
    assert call("recipe", "show", str(path), "--effective").stdout == text
    shown = json.loads(call("recipe", "show", str(path), "--json").stdout)
    assert shown["stages"][1]["speedup"] == 3.0


def test_recipe_check() -> None:
    assert call("recipe", "check", "mobile").stdout == "mobile: can be used (distill → prune → qat)\n"
    bad = call("recipe", "check", "mobile", "--set", "stages.prune.speedpu=3", "--set", "sed=1", "--json")
    assert bad.exit_code == 2
    verdict = json.loads(bad.stdout)
    assert not verdict["valid"]
    assert len(verdict["faults"]) == 2
    assert "did you mean 'speedup'" in bad.stderr
    assert "did you mean 'seed'" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_recipe_cp_never_overwrites(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    assert call("recipe", "cp", "mobile", str(target)).exit_code == 0
    assert call("recipe", "check", str(target)).stdout.startswith("mine: can be used")
    target.write_text("my work")
    again = call("recipe", "cp", "quick", str(target))
    assert again.exit_code == 2
    assert "already there" in again.stderr
    assert target.read_text() == "my work"


def test_recipe_cp_into_a_folder_and_without_a_suffix(tmp_path: Path) -> None:
    call("recipe", "cp", "quick", str(tmp_path))
    call("recipe", "cp", "quick", str(tmp_path / "other"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.yaml", "quick.yaml"]
    missing = call("recipe", "cp", "quick", str(tmp_path / "none/here.yaml"))
    assert missing.exit_code == 2
    assert "mkdir -p" in missing.stderr


def test_an_unknown_recipe() -> None:
    for command in ("show", "check"):
        result = call("recipe", command, "mobil")
        assert result.exit_code == 2
        assert "did you mean 'mobile'?" in result.stderr
        assert not result.stdout


# --- compress --------------------------------------------------------------------------------------------


def test_everything_is_handed_on(pipeline: Callable[..., None]) -> None:
    seen: dict[str, Any] = {}

    def compress(workload: Any, **rest: Any) -> Report:
        seen.update(rest, workload=workload)
        return report()

    pipeline(compress)
    result = call(
        *("compress", "w.py:f", "--recipe", "quick", "--device", "a", "--device", "b", "--out", "o"),
        *(
            "--set",
            "seed=1",
            "--set",
            "stages.qat.training.epochs=0",
            "--log",
            "tensorboard",
            "--samples",
            "50",
        ),
    )
    assert result.exit_code == 0, result.stderr
    del seen["progress"]
    assert seen == {
        "workload": "w.py:f",
        "recipe": "quick",
        "devices": ("a", "b"),
        "out": Path("o"),
        "overrides": ("seed=1", "stages.qat.training.epochs=0", "diagnose.samples=50"),
        "log": ("tensorboard",),
    }


def test_the_table_tells_it_all_and_warnings_come_first(pipeline: Callable[..., None]) -> None:
    pipeline(lambda *_, **__: report())
    text = call("compress").stdout
    order = ["int8 is slower", "trained model", "distill (unchanged)", "prune", "original-fp32.onnx"]
    order += ["model-int8.tflite", "model-int8.onnx", "recommended: model-int8.tflite in litert", "runs/toy"]
    positions = [text.index(part) for part in order]
    assert positions == sorted(positions)
    row = text[text.index("\nmodel-int8.tflite") : text.index("\nmodel-int8.onnx")]
    for cell in ("91.05 %", "120 k", "20.0 M", "150 KB", "1t  210 µs / 230 µs", "7.33", "4.00"):
        assert cell in row.splitlines()[1]
    for cell in ("2t  160 µs / 180 µs", "3.12"):
        assert cell in row.splitlines()[2]
    (failed,) = [line for line in text.splitlines() if line.startswith("model-int8.onnx")]
    assert "failed" in failed
    assert "fastest within 1 point" in text


def test_json_is_the_report(pipeline: Callable[..., None]) -> None:
    pipeline(lambda *_, **__: report())
    assert json.loads(call("compress", "--json").stdout) == report().to_json()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_figure_is_cut_off_in_a_narrow_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(report_view(report().to_json(), width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    for cell in ("91.05 %", "20.0 M", "210 µs / 230 µs", "7.33", "4.00", "original-fp32.onnx"):
        assert cell in text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RecipeError("wrong", faults=["a: b", "c: d"]), 2),
        (WorkloadError("failing", user_traceback='File "mine.py", line 3\nZeroDivisionError: oh'), 2),
        (DataError("no samples"), 2),
        (MissingExtraError("no litert", next="pip install 'edgekit-toolkit[litert]'"), 2),
        (DiskFullError("full"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 2),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "runs/x"), 2),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 2),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2),
        (OSError(errno.EMFILE, "Too many open files", "x.py"), 2),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"), 2),
        (MemoryError(), 2),
        (RuntimeError("could not create a primitive"), 2),
        (RuntimeError("could not create a primitive descriptor for a convolution"), 1),
        (StageError("diverged"), 1),
        (ValueError("a bug"), 1),
        (Interrupted("stopped"), 130),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_exit_codes_and_no_traceback(pipeline: Callable[..., None], error: BaseException, code: int) -> None:
    pipeline(fails_with(error))
    result = call("compress", "--json")
    assert result.exit_code == code
    assert not result.stdout
    assert "Traceback" not in result.stderr
    for part in (
        *getattr(error, "faults", ()),
        getattr(error, "user_traceback", ""),
        getattr(error, "next", ""),
    ):
        assert part in result.stderr


def test_a_full_disk_below_another_error(pipeline: Callable[..., None]) -> None:
    error = StageError("the export failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "runs/x/model.onnx")
    pipeline(fails_with(error))
    result = call("compress")
    assert result.exit_code == 2
    assert "runs/x/model.onnx: can't write\n  got:      No space left on device" in result.stderr


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files", "x.py"), "ulimit -n"),
        (RuntimeError("std::bad_alloc"), "not enough memory"),
    ],
)
def test_a_want_below_another_error_is_no_fault_of_what_failed(
    pipeline: Callable[..., None], cause: Exception, said: str
) -> None:
    error = StageError("the export failed", where="model.onnx")
    error.__cause__ = cause
    pipeline(fails_with(error))
    result = call("compress")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: model.onnx: ")
    assert said in result.stderr


def test_ctrl_c_says_how_to_go_on(pipeline: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["edgekit", "compress", "my work.py"])
    pipeline(fails_with(KeyboardInterrupt()))
    assert "edgekit compress 'my work.py'" in call("compress", "my work.py").stderr


def test_a_traceback_for_who_asks(pipeline: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline(fails_with(ValueError("a bug")))
    assert "EDGEKIT_TRACEBACK=1" in call("compress").stderr
    monkeypatch.setenv("EDGEKIT_TRACEBACK", "1")
    result = call("compress")
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    done = python(
        "import sys; sys.argv = ['edgekit']\nfrom edgekit.cli.app import app\napp(prog_name='edgekit')",
        _EDGEKIT_COMPLETE=f"source_{shell}",
    )
    assert "_EDGEKIT_COMPLETE" in done.stdout, done.stderr


def test_recipe_names_are_completed() -> None:
    done = python(
        "import sys; sys.argv = ['edgekit']\nfrom edgekit.cli.app import app\napp(prog_name='edgekit')",
        _EDGEKIT_COMPLETE="complete_bash",
        COMP_WORDS="edgekit compress --recipe m",
        COMP_CWORD="3",
    )
    assert done.stdout.split() == ["microcontroller", "mobile"]


def test_events_of_every_kind_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from edgekit.cli.views.console import RunView

    with RunView(sys.stderr) as view:
        for kind in ("stage-start", "step", "epoch", "stage-end", "stage-skipped", "note", "warning"):
            view(Event(kind, "export", message="[bold]as it is[/]"))
    assert "[bold]as it is[/]" in capsys.readouterr().err
