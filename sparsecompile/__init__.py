"""sparsecompile: `torch.compile(model, backend="sparse")`.

Finds weights that hold zeros, packs them, generates kernels for them, and says why.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # `as` says that they are public.
    from torch.nn import Module

    from sparsecompile.codecs.float import Float as Float
    from sparsecompile.codecs.integer import Int4 as Int4
    from sparsecompile.codecs.integer import Int8 as Int8
    from sparsecompile.compiler import Compiler as Compiler
    from sparsecompile.component import Component as Component
    from sparsecompile.errors import BuildError as BuildError
    from sparsecompile.errors import CacheError as CacheError
    from sparsecompile.errors import FileError as FileError
    from sparsecompile.errors import ModelError as ModelError
    from sparsecompile.errors import OptionError as OptionError
    from sparsecompile.errors import OrderingError as OrderingError
    from sparsecompile.errors import PackedWeightError as PackedWeightError
    from sparsecompile.errors import PassError as PassError
    from sparsecompile.errors import RegistrationError as RegistrationError
    from sparsecompile.errors import Reject as Reject
    from sparsecompile.errors import RejectedError as RejectedError
    from sparsecompile.errors import SparseCompileError as SparseCompileError
    from sparsecompile.formats.codec import Codec as Codec
    from sparsecompile.formats.coordinates import Places as Places
    from sparsecompile.formats.decomposition import Decomposition as Decomposition
    from sparsecompile.formats.detector import Detector as Detector
    from sparsecompile.formats.expression import Expression as Expression
    from sparsecompile.formats.expression import Leaf as Leaf
    from sparsecompile.formats.expression import Product as Product
    from sparsecompile.formats.expression import Stack as Stack
    from sparsecompile.formats.expression import Sum as Sum
    from sparsecompile.formats.names import format_of as format_of
    from sparsecompile.formats.occupancy import Occupancy as Occupancy
    from sparsecompile.formats.packed import Format as Format
    from sparsecompile.formats.packed import Packed as Packed
    from sparsecompile.formats.structure import Structure as Structure
    from sparsecompile.graph.edit import Edit as Edit
    from sparsecompile.graph.edit import origins as origins
    from sparsecompile.graph.mutation import writes_in_place as writes_in_place
    from sparsecompile.graph.pattern import Call as Call
    from sparsecompile.graph.pattern import Match as Match
    from sparsecompile.graph.rule import Pass as Pass
    from sparsecompile.graph.rule import Phase as Phase
    from sparsecompile.graph.rule import Rule as Rule
    from sparsecompile.graph.weight_functions import weight_function as weight_function
    from sparsecompile.graph.weight_view import weight_reader as weight_reader
    from sparsecompile.kernels.codegen import Codegen as Codegen
    from sparsecompile.kernels.epilogue import MAX_OPERANDS as MAX_OPERANDS
    from sparsecompile.kernels.epilogue import STEPS as STEPS
    from sparsecompile.kernels.extern import Extern as Extern
    from sparsecompile.kernels.extern import InlineExtern as InlineExtern
    from sparsecompile.kernels.extern import PackedExtern as PackedExtern
    from sparsecompile.kernels.kernel import Kernel as Kernel
    from sparsecompile.kernels.prologue import quantize_activation as quantize_activation
    from sparsecompile.kernels.spec import KernelSpec as KernelSpec
    from sparsecompile.kernels.spec import Schedule as Schedule
    from sparsecompile.kernels.target import Target as Target
    from sparsecompile.kernels.template import Fragment as Fragment
    from sparsecompile.kernels.template import Source as Source
    from sparsecompile.kernels.template import Template as Template
    from sparsecompile.operators.attention.int8_cache import Int8Cache as Int8Cache
    from sparsecompile.operators.linear.packed import PACKED as PACKED
    from sparsecompile.operators.linear.packed import insert_packed_linear as insert_packed_linear
    from sparsecompile.operators.linear.packed import packed_linear as packed_linear
    from sparsecompile.operators.linear.packed import packed_linears as packed_linears
    from sparsecompile.operators.linear.quantized import (
        QUANTIZED_ACTIVATION as QUANTIZED_ACTIVATION,
    )
    from sparsecompile.operators.linear.quantized import QUANTIZED_WEIGHT as QUANTIZED_WEIGHT
    from sparsecompile.operators.linear.quantized import codec_of as codec_of
    from sparsecompile.operators.linear.quantized import quantize_weight as quantize_weight
    from sparsecompile.operators.linear.quantized import remember_codec as remember_codec
    from sparsecompile.operators.linear.spellings import LINEAR as LINEAR
    from sparsecompile.operators.operator import Operator as Operator
    from sparsecompile.options.options import Options as Options
    from sparsecompile.registry import Registry as Registry
    from sparsecompile.registry import default_registry as default_registry
    from sparsecompile.report.facts import GraphReport as GraphReport
    from sparsecompile.report.facts import KernelChoice as KernelChoice
    from sparsecompile.report.facts import NodeReport as NodeReport
    from sparsecompile.report.model import Report as Report
    from sparsecompile.sparsification.distillation import Distillation as Distillation
    from sparsecompile.sparsification.keep_zeros import KeepZeros as KeepZeros
    from sparsecompile.sparsification.method import Method as Method
    from sparsecompile.sparsification.method import Problem as Problem
    from sparsecompile.sparsification.recipe import Recipe as Recipe
    from sparsecompile.sparsification.report import SparsifyReport as SparsifyReport
    from sparsecompile.sparsification.schedule import SparseSchedule as SparseSchedule
    from sparsecompile.sparsification.sparsify import sparsify as sparsify
    from sparsecompile.storage.compress import compress as compress
    from sparsecompile.storage.gguf import load_gguf as load_gguf
    from sparsecompile.storage.load import load as load
    from sparsecompile.storage.save import save as save
    from sparsecompile.structures.bitmap import Bitmap as Bitmap
    from sparsecompile.structures.block import Block as Block
    from sparsecompile.structures.csr import CSR as CSR
    from sparsecompile.structures.dense import Dense as Dense
    from sparsecompile.structures.n_m import NM as NM
    from sparsecompile.weights.cache import PACK_CACHE as PACK_CACHE
    from sparsecompile.weights.packed_tensor import PackedTensor as PackedTensor

__version__ = "0.1.0"


_MODULES = {
    name: module
    for module, names in {
        "sparsecompile.codecs.float": "Float",
        "sparsecompile.codecs.integer": "Int4 Int8",
        "sparsecompile.compiler": "Compiler",
        "sparsecompile.component": "Component",
        "sparsecompile.errors": (
            "BuildError CacheError FileError ModelError OptionError OrderingError "
            "PackedWeightError PassError RegistrationError Reject RejectedError "
            "SparseCompileError"
        ),
        "sparsecompile.formats.codec": "Codec",
        "sparsecompile.formats.coordinates": "Places",
        "sparsecompile.formats.decomposition": "Decomposition",
        "sparsecompile.formats.detector": "Detector",
        "sparsecompile.formats.expression": "Expression Leaf Product Stack Sum",
        "sparsecompile.formats.names": "format_of",
        "sparsecompile.formats.occupancy": "Occupancy",
        "sparsecompile.formats.packed": "Format Packed",
        "sparsecompile.formats.structure": "Structure",
        "sparsecompile.graph.edit": "Edit origins",
        "sparsecompile.graph.mutation": "writes_in_place",
        "sparsecompile.graph.pattern": "Call Match",
        "sparsecompile.graph.rule": "Pass Phase Rule",
        "sparsecompile.graph.weight_functions": "weight_function",
        "sparsecompile.graph.weight_view": "weight_reader",
        "sparsecompile.kernels.epilogue": "MAX_OPERANDS STEPS",
        "sparsecompile.kernels.codegen": "Codegen",
        "sparsecompile.kernels.extern": "Extern InlineExtern PackedExtern",
        "sparsecompile.kernels.kernel": "Kernel",
        "sparsecompile.kernels.prologue": "quantize_activation",
        "sparsecompile.kernels.spec": "KernelSpec Schedule",
        "sparsecompile.kernels.target": "Target",
        "sparsecompile.kernels.template": "Fragment Source Template",
        "sparsecompile.operators.attention.int8_cache": "Int8Cache",
        "sparsecompile.operators.linear.packed": (
            "PACKED insert_packed_linear packed_linear packed_linears"
        ),
        "sparsecompile.operators.linear.quantized": (
            "QUANTIZED_ACTIVATION QUANTIZED_WEIGHT codec_of quantize_weight remember_codec"
        ),
        "sparsecompile.operators.linear.spellings": "LINEAR",
        "sparsecompile.operators.operator": "Operator",
        "sparsecompile.options.options": "Options",
        "sparsecompile.registry": "Registry default_registry",
        "sparsecompile.report.facts": "GraphReport KernelChoice NodeReport",
        "sparsecompile.report.model": "Report",
        "sparsecompile.sparsification.distillation": "Distillation",
        "sparsecompile.sparsification.keep_zeros": "KeepZeros",
        "sparsecompile.sparsification.method": "Method Problem",
        "sparsecompile.sparsification.recipe": "Recipe",
        "sparsecompile.sparsification.report": "SparsifyReport",
        "sparsecompile.sparsification.schedule": "SparseSchedule",
        "sparsecompile.sparsification.sparsify": "sparsify",
        "sparsecompile.storage.compress": "compress",
        "sparsecompile.storage.gguf": "load_gguf",
        "sparsecompile.storage.load": "load",
        "sparsecompile.storage.save": "save",
        "sparsecompile.structures.bitmap": "Bitmap",
        "sparsecompile.structures.block": "Block",
        "sparsecompile.structures.csr": "CSR",
        "sparsecompile.structures.dense": "Dense",
        "sparsecompile.structures.n_m": "NM",
        "sparsecompile.weights.cache": "PACK_CACHE",
        "sparsecompile.weights.packed_tensor": "PackedTensor",
    }.items()
    for name in names.split()
}
"""Where public names are: they are imported at their first use, not every command needs torch."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


def register(*components: Component) -> None:
    """Add structures, codecs, passes or templates for every Compiler made from now on.

    Args:
        components: instances of `Structure`, `Codec`, `Pass`, `Template`, `Fragment`, ...

    Raises:
        RegistrationError: not a component, or its name is taken.
    """
    from sparsecompile.registry import default_registry

    default_registry().register(*components)


def explain(model: Callable[..., Any], *inputs: Any, **options: Any) -> Report:
    """What `torch.compile(model, backend="sparse", options=options)` does to a model, and why.

    The model runs once on the inputs, without gradients; only packed linears are compiled.

    Args:
        model: a module or function.
        inputs: its example inputs. For keyword inputs use `Compiler(**options).explain`.
        options: see `Options`.

    Raises:
        OptionError: an option that does not exist or cannot be used, or a name pattern that matches
            no weight.
        RejectedError: under `strict`, something would be left dense.
    """
    from sparsecompile.compiler import Compiler

    return Compiler(**options).explain(model, *inputs)


def refresh(model: Module) -> None:
    """Pack the weights of a compiled model anew at its next call.

    In-place writes, `load_state_dict` and replaced parameters are noticed without it, and so is
    what changes much of a weight on the CPU. It is needed after writes that torch does not count
    (through `weight.data`, numpy, or another process) to a small part of a weight, or to one on a
    GPU.

    Args:
        model: what `torch.compile` returned for a module, or that module.

    Raises:
        ModelError: not a module, such as a compiled function: what it reads is not known.
    """
    from torch.nn import Module

    from sparsecompile.errors import ModelError
    from sparsecompile.weights.cache import PACK_CACHE

    if not isinstance(model, Module):
        raise ModelError(
            f"refresh takes a module, not {type(model).__name__}: whose weights a function "
            "reads is not known; call sparsecompile.refresh for every module that it calls"
        )
    PACK_CACHE.forget([*model.parameters(), *model.buffers()])


# Int8Cache imports transformers, which not everyone has.
__all__ = sorted([*_MODULES.keys() - {"Int8Cache"}, "explain", "refresh", "register"])
