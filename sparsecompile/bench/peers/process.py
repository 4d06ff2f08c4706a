"""ContestantProcess: the parent's end of a contestant."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from sparsecompile.bench.peers.contract import Job
from sparsecompile.errors import SparseCompileError

COMMAND = (sys.executable, "-m", "sparsecompile.bench.peers.worker")
LAST_LINES = 20


class ContestantError(SparseCompileError):
    """A contestant failed.

    Attributes:
        reason: in a few words.
        stderr: the last lines that it wrote.
    """

    def __init__(self, job: Job, reason: str, stderr: str) -> None:
        super().__init__(f"{job.contestant}: {reason}" + (f"\n{stderr}" if stderr else ""))
        self.reason, self.stderr = reason, stderr


class ContestantProcess:
    """A contestant in a process, and in a process group, of its own.

    Args:
        job: what it is to do.
        command: that speaks the protocol of `worker`; by default that.
    """

    def __init__(self, job: Job, command: tuple[str, ...] | None = None) -> None:
        self.job = job
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command or COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment(os.environ, job),
            start_new_session=True,
        )
        self._read = b""

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self._process.pid

    def begin(self, timeout: float) -> dict[str, Any]:
        """Send the job; the answer has `ready` or `left_out`.

        Raises:
            ContestantError: it failed, or took longer than the timeout in seconds.
        """
        return self.ask(asdict(self.job), timeout)

    def ask(self, request: Any, timeout: float) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises:
            ContestantError: it failed, or took longer than the timeout in seconds.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        answer: dict[str, Any] = json.loads(self._line(time.monotonic() + timeout, timeout))
        return answer

    def close(self) -> None:
        """End the process and all that it started; once is enough."""
        if self._stderr.closed:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stderr.close()

    def _line(self, deadline: float, timeout: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        with selectors.DefaultSelector() as ready:
            ready.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if not ready.select(max(0.0, deadline - time.monotonic())):
                    text = f"no answer within {timeout:g} s"
                    raise ContestantError(self.job, text, self._last_lines())
                part = os.read(pipe, 1 << 16)
                if not part:
                    raise self._ended()
                self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _ended(self) -> ContestantError:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return ContestantError(self.job, "closed its pipe", self._last_lines())
        reason = f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ContestantError(self.job, reason, self._last_lines())

    def _last_lines(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").rstrip().splitlines()
        return "\n".join(lines[-LAST_LINES:])


def environment(given: Mapping[str, str], job: Job) -> dict[str, str]:
    """The variables of a contestant: as many threads for each, which wait as they always do."""
    count = str(job.threads)
    named = {"TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE": "1"} if job.profile else {}
    return {
        **given,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), count),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **named,
    }
