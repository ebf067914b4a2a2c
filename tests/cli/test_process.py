"""What only a process of its own shows: imports, bugs, interrupts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command_line import NET

HEAVY = (
    "tvm",
    "tvm_ffi",
    "onnx",
    "numpy",
    "msgspec",
    "networkx",
    "onnxruntime",
    "ml_dtypes",
    "psutil",
)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], [], ["compile", "--help"], ["--version"], ["bogus"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from convc.cli import invoke; invoke(sys.argv[1:]);"
        f"print('HEAVY', [m for m in {HEAVY} if m in sys.modules])"
    )
    done = python(code, *arguments)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout + done.stderr


BUG = "import sys; sys.argv[0] = 'convc'; import convc.cli.doctor; import convc.doctor; convc.doctor.diagnose = lambda: 1 / 0; from convc.cli import main; main()"


def test_a_bug_says_where_its_traceback_is() -> None:
    done = python(BUG, "doctor")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "error: convc has a bug: ZeroDivisionError: division by zero"
    prefix, suffix = (
        "The full traceback is in ",
        " (-v shows it); please report it with the model, or its `convc inspect --text`.",
    )
    assert second.startswith(prefix)
    assert second.endswith(suffix)
    trace = Path(second.removeprefix(prefix).removesuffix(suffix))
    text = trace.read_text()
    trace.unlink()
    assert text.startswith("convc doctor\n\nTraceback (most recent call last):\n")
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_a_bug_in_json_is_one_document() -> None:
    done = python(BUG, "doctor", "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["exit"]) == ("ZeroDivisionError", 1)
    Path(error["message"].split("is in ")[1].split(" (-v")[0]).unlink()


def test_verbose_shows_a_bugs_traceback() -> None:
    done = python(BUG, "doctor", "-v")
    assert "Traceback (most recent call last):" in done.stderr
    Path(done.stderr.split("is in ")[1].split(" (-v")[0]).unlink()


def test_an_interrupt_exits_with_130() -> None:
    code = (
        "import os, signal, sys, time, convc.doctor\n"
        # The sleep: on a busy machine the signal arrives a moment after kill has returned.
        "convc.doctor.diagnose = lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(30))\n"
        "from convc.cli import main; sys.argv[1:] = ['doctor']; main()"
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    assert signal.SIGINT == 2


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "convc"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0
    assert done.stdout.startswith("convc compiles convolution networks: an ONNX model in, ")
    assert (
        "Verbs: check, inspect, compile, tune, run, bench, verify, sign, explain, ops, targets, rpc-tracker, rpc-server, doctor, log."
        in done.stdout
    )


def test_a_terminal_sees_progress_and_a_pipe_does_not(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    model = tmp_path / "net.cvc"
    model.write_text(NET)
    command = [sys.executable, "-m", "convc", "compile", str(model), "-o", str(tmp_path / "net.so")]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    seen = b""
    # Linux answers EIO, not an end of file, once the other side of a terminal is closed.
    with contextlib.suppress(OSError):
        while part := os.read(ours, 65536):
            seen += part
    os.close(ours)
    assert process.wait(60) == 0
    assert b"build" in seen
    assert (
        b"build"
        not in subprocess.run([*command, "-q"], capture_output=True, timeout=60, check=True).stderr
    )


@pytest.mark.slow
def test_the_demo_runs() -> None:
    demo = Path(__file__).parents[2] / "examples" / "demo.py"
    done = subprocess.run(
        [sys.executable, str(demo)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "ok"
