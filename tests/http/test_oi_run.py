"""oi-run as a command: usage, errors of one line, the terminal."""

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.http.server_process import RUN_FAKE, RUN_REAL, ServerProcess


def run(*arguments: str, command: list[str] = RUN_FAKE, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, **options)


def one_line_error(found: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert found.returncode == code, found.stderr
    lines = found.stderr.splitlines()
    assert len(lines) == 1, found.stderr
    assert lines[0].startswith("oi-run: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "a prompt, --chat, --http"),
        (["x", "--http"], "a prompt, --chat, --http"),
        (["--http", "--chat"], "a prompt, --chat, --http"),
        (["--htp"], "--htp"),
        (["--http", "--port", "70000"], "70000"),
        (["--http", "--port", "x"], "'x'"),
        (["--http", "--max-num-seqs", "0"], "at least 1"),
        (["x", "--temperature", "9"], "0 to 2"),
        (["--http", "--kv-offload", "--kv-offload-host-gib", "0"], "more than 0; leave --kv-offload out"),
        (["--http", "--kv-offload", "--kv-offload-host-gib", "-3"], "more than 0"),
        (["--http", "--kv-offload", "--kv-offload-host-gib", "nan"], "more than 0"),
        (["--http", "--kv-offload", "--kv-offload-host-gib", "1e9"], "give less"),
        (["--http", "--kv-offload", "--kv-offload-host-gib", "inf"], "give less"),
        (["--http", "--kv-offload", "--kv-offload-host-gib", "16GB"], "'16GB' is no number of GiB"),
        (["--http", "--kv-offload-host-gib", "1"], "add --kv-offload"),
        (["x", "--model", "./nowhere"], "nowhere"),
        (["--http", "--host", "999.0.0.1"], "--host"),
    ],
)
def test_usage_errors_take_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    assert says in one_line_error(run(*arguments, cwd=tmp_path))


def test_help() -> None:
    found = run("--help")
    assert found.returncode == 0
    assert "--served-model-name" in found.stdout


def test_a_port_in_use(checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        error = one_line_error(run("--http", "--port", str(port), "--model", str(checkpoint)))
    assert f"port {port}" in error
    assert "in use" in error


def test_a_missing_artifact_is_an_error_that_names_the_command(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["x", "--model", str(checkpoint), "--artifact", str(tmp_path / "none"), "--no-compile"]
    error = one_line_error(run(*arguments, command=RUN_REAL))
    assert f"oi-compile models/qwen3.py --model {checkpoint} --target " in error
    assert error.endswith(f" -o {tmp_path / 'none'}")


def elsewhere(change: str) -> list[str]:
    """oi-run, where this code has made the machine another."""
    return [sys.executable, "-c", f"import sys\n{change}\nfrom oi.runtime.cli import main; sys.exit(main())"]


def with_gpu(arch: str) -> str:
    return f"import oi.runtime.target as t; t.host_gpu = lambda: {arch!r}"


def test_without_a_compiler_the_error_names_the_install(checkpoint: Path, tmp_path: Path) -> None:
    change = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in ('tvm', 'triton') else find(name, *rest)"
    )
    arguments = ["x", "--model", str(checkpoint), "--artifact", str(tmp_path / "none")]
    error = one_line_error(run(*arguments, command=elsewhere(change)))
    assert "pip install 'oi[compile]'" in error


@pytest.mark.parametrize("target", ["tpu", "cuda", "cuda:sm_75"])
def test_a_target_that_is_none(target: str, checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["x", "--model", str(checkpoint), "--artifact", str(tmp_path / "none"), "--target", target]
    assert "choose --target from " in one_line_error(run(*arguments, command=RUN_REAL))


def test_a_gpu_without_its_package_is_said_before_anything_is_compiled(checkpoint: Path, tmp_path: Path) -> None:
    change = with_gpu("sm_90") + "; sys.modules['cuda.bindings.driver'] = None"
    arguments = ["x", "--model", str(checkpoint), "--artifact", str(tmp_path / "none")]
    error = one_line_error(run(*arguments, command=elsewhere(change)))
    assert "pip install 'oi[cuda]', or serve on the CPU with --target cpu" in error


def test_a_gpu_without_kernels_is_left_out_visibly(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["x", "--model", str(checkpoint), "--artifact", str(tmp_path / "none"), "--no-compile"]
    found = run(*arguments, command=elsewhere(with_gpu("sm_103")))
    note, error = found.stderr.splitlines()
    assert note.startswith("oi: this GPU is sm_103, for which there are no kernels")
    assert "--target cpu" in error


def test_an_engine_that_cannot_start(checkpoint: Path) -> None:
    found = run("--http", "--port", "0", "--model", str(checkpoint), env={**os.environ, "FAKE_ENGINE": "fatal"})
    assert one_line_error(found, 1) == "oi-run: the fake engine was told not to start"


def test_a_damaged_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    error = one_line_error(run("x", "--model", str(tmp_path)))
    assert "tokenizer.json" in error


def test_the_names_of_the_model(checkpoint: Path) -> None:
    with ServerProcess("--model", str(checkpoint), "--served-model-name", "my/model") as server:
        assert server.get("/v1/models/my/model")[0] == 200
        assert server.post("/v1/completions", {"model": "my/model", "prompt": "x"})[0] == 200
    assert "my/model" in server.ready_line


def test_a_prompt_is_continued(checkpoint: Path) -> None:
    found = run("hello world", "--model", str(checkpoint), "--temperature", "0")
    assert (found.returncode, found.stdout, found.stderr) == (0, "hello world\n", "")
    found = run("hello world", "--model", str(checkpoint), "--temperature", "0", "--max-tokens", "2")
    assert found.stdout == "hello\n"


def test_output_that_nobody_reads(checkpoint: Path) -> None:
    process = subprocess.Popen(
        [*RUN_FAKE, "hello world " * 40, "--model", str(checkpoint)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "FAKE_ENGINE_SLOW": "0.01"},
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(10) == 141


def test_a_prompt_that_is_too_long(checkpoint: Path) -> None:
    error = one_line_error(run("hello world " * 200, "--model", str(checkpoint)))
    assert "255" in error


def test_a_conversation(checkpoint: Path) -> None:
    arguments = ["--chat", "--model", str(checkpoint), "--temperature", "0"]
    found = run(*arguments, input="hello\n\n/exit\n")
    assert found.returncode == 0
    assert "user\nhello" in found.stdout  # the fake engine's answer
    assert run(*arguments, input="").returncode == 0


def test_ctrl_c_stops_the_answer_only(checkpoint: Path) -> None:
    """In a terminal of its own, where Ctrl-C goes to every process of the foreground."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*RUN_FAKE, "--chat", "--model", str(checkpoint), "--temperature", "0"],
        stdin=child,
        stdout=child,
        stderr=child,
        env={**os.environ, "FAKE_ENGINE_SLOW": "0.05"},
        start_new_session=True,
    )
    os.close(child)
    try:
        _read_until(parent, b"> ")
        os.write(parent, b"one two three four five six seven eight nine ten eleven\n")
        _read_until(parent, b"\n")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _read_until(parent, b"> ")
        os.write(parent, b"/exit\n")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(parent)


def _read_until(terminal: int, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += os.read(terminal, 1024)
    return data


def test_nothing_of_the_compiler_is_imported(checkpoint: Path) -> None:
    """Nor what a server does not need: numpy and the hub's client."""
    code = (
        "import runpy, sys, atexit\n"
        "banned = 'torch triton tvm tvm_ffi numba numpy transformers huggingface_hub '\n"
        "banned = (banned + 'oi.ir oi.codegen oi.models').split()\n"
        "atexit.register(lambda: print([name for name in banned if name in sys.modules], file=sys.stderr))\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    found = run(RUN_FAKE[1], "hello", "--model", str(checkpoint), command=[sys.executable, "-c", code])
    assert found.stderr == "[]\n"
    with ServerProcess("--model", str(checkpoint), command=[sys.executable, "-c", code, RUN_FAKE[1]]) as server:
        server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
        server.get("/openapi.json")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.log[-1] == "[]\n"
