"""A server in a process of its own, and what is running in it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

RUN_FAKE = [sys.executable, str(Path(__file__).with_name("run_fake.py"))]
RUN_REAL = [sys.executable, "-m", "oi.runtime.cli"]


class ServerProcess:
    """`oi-run --http` on a free port, ready to be asked. Its log is kept in `log`."""

    def __init__(self, *arguments: str, command: list[str] = RUN_FAKE, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*command, "--http", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.log: list[str] = []
        self._reading = threading.Thread(target=self._read_log, daemon=True)
        self._reading.start()
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline()
        found = re.search(r"(http://\S+)/v1", self.ready_line)
        assert found, f"no ready line but {self.ready_line!r}; log: {''.join(self.log)}"
        self.url = found[1]

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 10.0) -> int:
        """The exit code."""
        code = self.process.wait(seconds)
        self._reading.join(seconds)
        return code

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        return self.send("GET", path, None, headers)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """`body` is JSON to be, or bytes as they are; the answer is parsed."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, text = self.send("POST", path, data, {"Content-Type": "application/json", **(headers or {})})
        return status, json.loads(text)

    def send(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        request = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def metric(self, name: str) -> float:
        """The sum over all labels."""
        _, text = self.get("/metrics")
        values = re.findall(rf"^(?:vllm|oi):{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        assert values, f"no metric {name} in {text}"
        return sum(map(float, values))

    def wait_metric(self, name: str, value: float, seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.metric(name)) != value:
            assert time.monotonic() < deadline, f"{name} is {found}, not {value}"
            time.sleep(0.02)
