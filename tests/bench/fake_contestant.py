"""A process that speaks the protocol of contestants, and behaves as its options say."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def say(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    job = json.loads(sys.stdin.readline())
    kind = job["options"]["type"]
    if kind == "unfit":
        say(left_out="needs what is not there")
        return
    if kind == "hangs":
        time.sleep(60)
    if kind == "breaks":
        raise RuntimeError("it broke")
    say(ready="nothing at all", items=10 * job["size"], versions="fake 1")
    for runs, line in enumerate(sys.stdin):
        if json.loads(line) == "parts":
            say(parts=None if kind == "shy" else {"a part": 1.5, "rest": 0.5})
            continue
        if kind == "dies" and runs == 1:
            sys.stderr.write("so long\n")
            sys.stderr.flush()
            os.kill(os.getpid(), 9)
        with Path(os.environ["FAKE_PEERS_LOG"]).open("a") as log:
            log.write(f"{os.getpid()} {kind} {os.environ['OMP_NUM_THREADS']}\n")
        say(seconds=0.4 if kind == "slow" else 0.2, disturbed=runs == 0, overhead=0.125)


main()
