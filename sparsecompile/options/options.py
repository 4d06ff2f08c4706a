"""Options: what `torch.compile(..., options={...})` may say."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecompile.errors import OptionError
from sparsecompile.options.inductor import check_options
from sparsecompile.options.recipes import low_rank_recipes, recipes_of

if TYPE_CHECKING:
    from sparsecompile.masks.predicate import Function

TUNE = ("off", "cached", "fast", "full")
LOSSY = {
    "prune": "prune",
    "low_rank": "find_low_rank",
    "quantize": "quantize",
    "attention": "sparsify_attention",
}
"""Options that ask for lossy changes, and the passes that make them."""


def _default_tune() -> str:
    return os.environ.get("SPARSECOMPILE_TUNE") or "fast"


@dataclass(frozen=True)
class Options:
    """Validated options of one Compiler.

    Attributes:
        formats: names of the formats that may be used, the preferred first among equals, such as
            `["n_m[2:4]", "bitmap"]`, also spelt as for `prune`: `["2:4", "unstructured"]`; a bare
            structure means the codec `float`. Default: all.
        passes: pass name -> its options, such as `{"merge_linears": {"most": 2}}`; the key
            `"without"` lists passes to leave out.
        prune: lossy. `"2:4"`, `"unstructured(0.8)"`, `"block(16,16,0.5)"` for every linear, or a
            mapping from name patterns to these, such as `"*.mlp.*"`, `"lm_head"`,
            `"lm_head.weight"` or, as reports have them, `"layers.{0-3}.mlp.up"`; the first that
            matches counts, and each has to match a weight of the model.
        quantize: lossy. `"int8-weight-only"` (one scale a row), `"int8"` (also every row of the
            activations, when it runs), `"int4"` (weights only, a scale for 128 columns) for every
            linear, with other groups or scales as in `"int4[group=32,scales=float16]"`, or a
            mapping as for `prune`.
        low_rank: lossy. Two factors of the nearest weight of a lower rank: 0.25 is a share of the
            smaller side, `{"energy": 0.99}` the smallest rank that keeps this share of the squared
            singular values; for every linear, or a mapping as for `prune`.
        attention: lossy. Which keys queries attend to, besides what the model's own mask drops:
            the text of a pattern such as `"window(256) + global(16)"`, of a choice such as
            `"top_blocks(0.2)"`, or a predicate `mask_mod(b, h, q, kv)`; for every attention, or a
            mapping from patterns of module names to these, such as `"layers.{0-3}.self_attn"`.
        tune: how kernels are chosen. `"fast"`, the default, measures a few candidates and the
            dense linear once for each shape and remembers the result; `"full"` measures every
            schedule; `"cached"` takes what was measured before and measures nothing; `"off"`
            packs whatever is smaller, unmeasured. `$SPARSECOMPILE_TUNE` changes the default.
        dense_copies: allow dense copies of weights beside packed ones, in the order of
            `Codegen.dense_copy`, where the dense linear is faster for some m with them. Without
            it a weight packed on request has one of the two, for every m of a graph, and the dense
            weights that a model has itself are read as they are.
        regions: let linears that follow each other at few rows, and what stands between them, be
            one call and one parallel region.
        detect: look for what weights were rounded to before they were loaded as floats, and pack
            those few bits where they hold every value.
        strict: raise `RejectedError` where a weight would be left dense although it holds zeros, of
            convolutions and recurrent modules too, or was asked to be pruned or quantised, and
            build errors instead of running dense.
        target: `"auto"`: where the parameters of the model are; `"cpu"`, also with an instruction
            set: `"cpu[avx2]"`, `"cpu[portable]"`; or a GPU's architecture, `"sm_90"`, `"gfx942"`,
            for which `explain` needs no GPU.
        dump: folder that gets the graph after every pass, the generated sources and the report.
        inductor: options for Inductor, such as `{"max_autotune": True}`.
    """

    formats: tuple[str, ...] | None = None
    passes: Mapping[str, Any] = field(default_factory=dict)
    prune: str | Mapping[str, str] | None = None
    quantize: str | Mapping[str, str] | None = None
    low_rank: float | Mapping[str, Any] | None = None
    attention: str | Function | Mapping[str, str | Function] | None = None
    tune: str = field(default_factory=_default_tune)
    dense_copies: bool = False
    regions: bool = True
    detect: bool = True
    strict: bool = False
    target: str = "auto"
    dump: Path | None = None
    inductor: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Options:
        """Check options as a user gives them.

        Raises:
            OptionError: unknown, of a wrong type, or with a value that cannot be used.
        """
        given = dict(options or {})
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, 1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise OptionError(
                    str(name), f"unknown option {name!r}; {hint}known: {', '.join(known)}"
                )
        if isinstance(given.get("formats"), (list, tuple)):
            given["formats"] = tuple(given["formats"])
        if isinstance(given.get("dump"), str):
            given["dump"] = Path(given["dump"])
        result = cls(**given)
        result._check()
        return result

    def recipes(self) -> dict[str, Mapping[str, Any]]:
        """Patterns of weight names and their recipes, by the option that gives them."""
        names = ("prune", "quantize")
        found = {name: recipes_of(name, self._asked(name)) for name in names}
        return {**found, "low_rank": low_rank_recipes(self._asked("low_rank"))}

    @property
    def changes_weights(self) -> bool:
        """Whether lossy changes of weights are asked for."""
        return any(map(bool, self.recipes().values()))

    def masks(self) -> Mapping[str, str | Function]:
        """Patterns of names of attentions, and what is asked for them."""
        return recipes_of("attention", self._asked("attention"), functions=True)

    def _asked(self, name: str) -> Any:
        return getattr(self, name) or self.passes.get(LOSSY[name], {}).get("recipe")

    def _check(self) -> None:
        formats = self.formats
        self._require(
            "formats",
            formats is None
            or (isinstance(formats, tuple) and all(isinstance(f, str) for f in formats)),
            "a list of format names",
        )
        self._require("passes", isinstance(self.passes, Mapping), "a mapping from pass names")
        self._check_passes()
        self.recipes()
        self.masks()
        self._require("tune", self.tune in TUNE, f"one of {', '.join(TUNE)}")
        for name in ("dense_copies", "regions", "detect", "strict"):
            self._require(name, isinstance(getattr(self, name), bool), "True or False")
        self._require("target", isinstance(self.target, str), "a string such as 'cpu'")
        self._require("dump", isinstance(self.dump, (Path, type(None))), "a folder")
        self._require("inductor", isinstance(self.inductor, Mapping), "a mapping")
        if self.inductor.get("freezing"):
            raise OptionError(
                "inductor",
                "Inductor's freezing bakes weights into the graph and never notices that they "
                'change; remove "freezing" from options["inductor"]',
            )
        check_options(self.inductor)

    def _check_passes(self) -> None:
        for name, given in self.passes.items():
            if name == "without":
                listed = isinstance(given, Collection) and not isinstance(given, (str, Mapping))
                if not listed or not all(isinstance(item, str) for item in given):
                    raise OptionError(
                        "passes",
                        "'without' in option 'passes' must be a list of pass names, as in "
                        f'{{"without": ["merge_linears"]}}, not {given!r}',
                    )
            elif not isinstance(given, Mapping):
                raise OptionError(
                    "passes",
                    f"option 'passes' must give {name!r} a mapping, as in "
                    f'{{"merge_linears": {{"most": 2}}}}, not {given!r}',
                )

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise OptionError(name, f"option {name!r} must be {what}, not {getattr(self, name)!r}")
