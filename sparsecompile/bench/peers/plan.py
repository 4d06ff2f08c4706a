"""What a command line asks to be measured: jobs by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsecompile.bench.cases import split
from sparsecompile.bench.peers.contract import Job, Peer, Workload
from sparsecompile.bench.peers.discovery import named
from sparsecompile.errors import OptionError

Case = tuple[Workload, tuple[Job, ...]]
ALL = "all"


def plan(
    workloads: str,
    peers: str,
    *,
    known: tuple[Mapping[str, Workload], Mapping[str, Peer]],
    threads: int,
    model: str | None = None,
    add: Sequence[str] = (),
) -> list[Case]:
    """The contestants of every case.

    Args:
        workloads: names between commas, each with its sizes if wanted: `minilm:1+8`; or `all`.
        peers: names between commas, each with options if wanted: `sparse:bfloat16+prune=2:4`; or
            `all`. Without options a peer chooses variants that fit the workload.
        known: workloads and peers by name.
        threads: for each contestant.
        model: path of a model.
        add: modules that contestants have to import.

    Raises:
        OptionError: something is misspelled.
        UnknownPeerError: there is no such workload or peer.
    """
    found, runtimes = known
    wanted = [_workload(text, found) for text in _names(workloads, found, "workload")]
    asked = [_peer(text, runtimes) for text in _names(peers, runtimes, "peers")]
    cases = []
    for workload, sizes in wanted:
        variants = [
            (peer.name, options)
            for peer, given in asked
            for options in ([given] if given is not None else map(parse, peer.variants(workload)))
        ]
        for size in sizes:
            jobs = [
                Job(workload.name, size, name, options, threads, model, tuple(add))
                for name, options in variants
            ]
            cases.append((workload, tuple(jobs)))
    return cases


def parse(text: str) -> dict[str, str]:
    """`bfloat16+prune=2:4` -> `{"type": "bfloat16", "prune": "2:4"}`.

    Raises:
        OptionError: a part is empty, or stands twice.
    """
    options: dict[str, str] = {}
    for part in filter(None, [text]):
        for word in part.split("+"):
            name, equals, value = word.strip().partition("=")
            key, value = (name, value) if equals else ("type", name)
            if not key or not value or key in options:
                raise OptionError("peers", f"{text!r} is not like bfloat16+prune=2:4")
            options[key] = value
    return options


def _names(text: str, known: Mapping[str, object], option: str) -> Sequence[str]:
    return list(known) if text == ALL else split(text, option)


def _workload(text: str, known: Mapping[str, Workload]) -> tuple[Workload, tuple[int, ...]]:
    name, colon, sizes = text.partition(":")
    workload = named(dict(known), name, "workload")
    if not colon:
        return workload, workload.sizes
    words = sizes.split("+")
    if not all(word.isdecimal() and int(word) for word in words):
        raise OptionError("workload", f"{text!r} is not like {name}:1+8, sizes above 0")
    return workload, tuple(map(int, words))


def _peer(text: str, known: Mapping[str, Peer]) -> tuple[Peer, dict[str, str] | None]:
    name, colon, options = text.partition(":")
    return named(dict(known), name, "peer"), parse(options) if colon else None
