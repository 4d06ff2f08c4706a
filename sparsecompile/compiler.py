"""Compiler: what `backend="sparse"` is."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils.weak import WeakIdKeyDictionary

from sparsecompile.component import Component
from sparsecompile.errors import BuildError, CacheError, Reject, unwrapped_by_dynamo
from sparsecompile.formats.detector import Detector
from sparsecompile.graph.compiled_model import compiled_model, names_of
from sparsecompile.graph.copy import copy_graph, function_of
from sparsecompile.graph.edit import Edit
from sparsecompile.graph.rule import Phase, run_passes
from sparsecompile.graph.timed import timed
from sparsecompile.graph.weight_view import WeightView
from sparsecompile.kernels.codegen import Codegen, Device
from sparsecompile.kernels.target import Target
from sparsecompile.lowering.compiled_graph import CompiledGraph
from sparsecompile.lowering.inductor import compile_dense, compile_rest
from sparsecompile.lowering.lower import lower
from sparsecompile.lowering.lowered import Lowered
from sparsecompile.lowering.relayout import share_layouts
from sparsecompile.lowering.slots import drop_packed
from sparsecompile.lowering.watch import Earlier, WatchedGraph, watched_in
from sparsecompile.options.options import Options
from sparsecompile.options.resolve import gpu_of, select_formats, select_passes, select_target
from sparsecompile.registry import Registry, default_registry
from sparsecompile.report.dump import Dump, readable
from sparsecompile.report.explain import explain
from sparsecompile.report.model import Report
from sparsecompile.report.reporter import Reporter
from sparsecompile.report.strictness import check_names
from sparsecompile.weights.cache import PACK_CACHE
from sparsecompile.weights.expression import is_fake

logger = logging.getLogger("sparsecompile")

Finish = Callable[[GraphModule, Sequence[Any], Sequence[Tensor]], Callable[..., Any]]
"""Compiles what is left: the graph, the values of its placeholders, the weights of its slots."""


class Compiler:
    """A backend for `torch.compile`: `torch.compile(model, backend=Compiler(prune="2:4"))`.

    Args:
        registry: structures, codecs, passes and templates; by default every installed plug-in.
        options: see `Options`.

    Raises:
        OptionError: an option that does not exist or cannot be used.
        RegistrationError: a format that does not exist.
        OrderingError: passes that cannot be ordered.
    """

    def __init__(self, registry: Registry | None = None, **options: Any) -> None:
        self._given = options
        self.options = Options.of(options)
        named = select_target(self.options)
        self._follows = named is None
        self.target = named or Target.host()
        self.reporter = Reporter(self.options, self.target)
        self._warned = False
        self._use(registry if registry is not None else default_registry())

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, pickled ones too, are asked for the same and have compiled nothing yet."""
        registry = None if self.registry is default_registry() else self.registry
        return partial(type(self), registry, **self._given), ()

    @property
    def report(self) -> Report:
        """What happened to every linear compiled so far."""
        return self.reporter.report

    def register(self, *components: Component) -> None:
        """Add structures, codecs, passes or templates to this Compiler alone.

        Raises:
            RegistrationError: not a component, or its name is taken.
            OrderingError: passes that cannot be ordered any more.
        """
        registry = self.registry.copy()
        registry.register(*components)
        self._use(registry)

    def _use(self, registry: Registry) -> None:
        self.passes = select_passes(registry, self.options)
        self.formats = select_formats(registry, self.options)
        self.registry = registry
        self._parts = registry if self.options.detect else registry.without(Detector)
        self.device = self._device(self.target)

    def _device(self, target: Target) -> Device:
        return Device(self.registry.get(Codegen, target.device), target, self._parts)

    def _device_for(self, inputs: Sequence[Any]) -> Device:
        """What kernels are made for: the target that was named, or where a graph's parameters are.

        Raises:
            Reject: they are on a GPU that is not there.
        """
        gpu = gpu_of(inputs) if self._follows else None
        return self.device if gpu is None else self._device(Target.of_gpu(gpu))

    def __call__(
        self,
        gm: GraphModule,
        example_inputs: Sequence[Any],
        *,
        mode: str | None = None,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Callable[..., Any]:
        """Compile a graph; called by Dynamo.

        Args:
            gm: the graph; it is not changed.
            example_inputs: values of its placeholders, the live Parameters among them.
            mode: as for `torch.compile`, for Inductor.
            options: added to the Compiler's own.
            name: ignored.

        Raises:
            SparseCompileError: a pass failed, or under `strict` something was left dense.
        """
        with unwrapped_by_dynamo():
            if options:
                compiler = Compiler(self.registry, **{**self._given, **options})
                return compiler(gm, example_inputs, mode=mode)
            finish = partial(
                compile_rest,
                mode=mode,
                options=self.options.inductor,
                version=self.device.codegen.sources_digest(),
            )
            return self.compile(gm, example_inputs, finish)

    def explain(self, model: Callable[..., Any], *args: Any, **kwargs: Any) -> Report:
        """What would happen to a model, without compiling more than its packed linears.

        The model runs once, without gradients, on the given inputs. Where the option `target` names
        another device than the one that the model is on, its linears are looked at as if they were
        there.

        Args:
            model: a module or function.
            args: its example inputs.
            kwargs: its example keyword inputs.

        Raises:
            OptionError: a name pattern matches no weight of the model.
            RejectedError: under `strict`, something would be left dense.
        """
        compiler = Compiler(self.registry, **self._given)
        compile = partial(compiler.compile, finish=_run_eagerly, explains=True)
        return explain(compile, compiler.reporter, model, args, kwargs)

    def compile(
        self,
        gm: GraphModule,
        inputs: Sequence[Any],
        finish: Finish,
        *,
        explains: bool = False,
        earlier: Earlier | None = None,
    ) -> Callable[..., Any]:
        """Pack what can be packed of a graph and let `finish` compile the rest.

        Args:
            gm: the graph.
            inputs: values of its placeholders.
            finish: compiles what is left.
            explains: whether this is for the report alone: no other graph changes, and weights are
                packed for a target that was named wherever they are; what comes out is the graph
                as it was where that is not the target.
            earlier: what is known of the graph where it was compiled before.

        Raises:
            SparseCompileError: a pass failed, or under `strict` something was left dense.
        """
        try:
            return self._compile(gm, inputs, finish, explains, earlier)
        except Reject as reject:
            # A weight was written to between a look at it and its packing.
            logger.warning("a graph is left dense: %s", reject.reason)
            return finish(gm, inputs, ())
        except (BuildError, CacheError) as error:
            if self.options.strict:
                raise
            self._warn(error)
            return finish(gm, inputs, ())

    def _compile(
        self,
        gm: GraphModule,
        inputs: Sequence[Any],
        finish: Finish,
        explains: bool,
        earlier: Earlier | None,
    ) -> Callable[..., Any]:
        PACK_CACHE.distrust()
        module = copy_graph(gm)
        device, missing = self.device, ""
        try:
            device = self._device_for(inputs)
        except Reject as reject:
            missing = reject.reason
        where = None if explains and not self._follows else device.target.device
        model = compiled_model()
        if model is not None:
            check_names(self.options, model)
        grad, names = torch.is_grad_enabled(), names_of(model)
        if earlier is not None:
            names = {**names, **earlier.names}
        view = WeightView(module, inputs, grad=grad, device=where, names=names)
        edit = Edit(module, view, self.formats, device)
        if missing:
            edit.rejected("target", None, missing)
        dump = Dump.of(self.options.dump)
        before = readable(module)
        dump.graph("captured", module)
        with timed("passes"):
            run_passes(self.passes, edit, lambda done: dump.graph(done.name, module))
        try:
            slots, lowered, readings, regions = lower(edit, self.options)
        except (BuildError, CacheError) as error:
            self.reporter.graph(edit, (), before, before, dump, failure=str(error))
            raise
        keep = drop_packed(module, slots, len(inputs))
        dump.graph("lowered", module)
        number = self.reporter.graph(edit, lowered, before, readable(module), dump, regions)
        original = function_of(gm)
        looked = earlier.looked if earlier is not None else WeakIdKeyDictionary()
        again, weights = partial(self._again, original, finish), watched_in(edit, lowered)

        def watched(run: Callable[..., Any]) -> Callable[..., Any]:
            names = view.own_names()
            return WatchedGraph(run, weights, inputs, names, looked, again) if weights else run

        if explains and any(_is_elsewhere(given, device) for given in inputs):
            return _run_eagerly(gm, inputs, ())
        if not slots:
            return watched(finish(module if self._is_changed(edit, lowered) else gm, inputs, ()))
        tensors = [tensor for slot in slots for tensor in view.live(slot.binding)]
        if any(tensor.device.type != device.target.device for tensor in tensors):
            return _run_eagerly(gm, inputs, ())
        packed = [slot.weight(view.live(slot.binding)) for slot in slots]
        run = finish(module, [inputs[i] for i in keep], packed)
        if any(map(is_fake, tensors)):
            return lambda *args: run(*[args[i] for i in keep], *packed)
        graph = CompiledGraph(
            run, keep, slots, partial(compile_dense, original), self.reporter.misfit
        )
        if explains:
            return graph
        share_layouts(readings, graph, view.live, device, partial(self.reporter.switched, number))
        return watched(graph)

    def _is_changed(self, edit: Edit, lowered: Sequence[Lowered]) -> bool:
        """Whether a graph without packed weights is another one than the model's."""
        fusing = {p.name for p in self.passes if p.phase is Phase.FUSE}
        fused = any(r.pass_name in fusing and not r.reason for r in edit.rewrites)
        return fused or any(low.kernel is not None for low in lowered)

    def _again(
        self, original: Callable[..., Any], finish: Finish, earlier: Earlier
    ) -> Callable[..., Any]:
        """Compile a graph anew, for what its weights hold now."""

        def backend(module: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
            with unwrapped_by_dynamo():
                return self.compile(module, inputs, finish, earlier=earlier)

        return torch.compile(original, backend=backend)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            message = f"sparsecompile leaves the model dense: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)


def _is_elsewhere(given: Any, device: Device) -> bool:
    """Whether kernels for a device cannot read an input of a graph."""
    return isinstance(given, Tensor) and given.device.type != device.target.device


def _run_eagerly(
    module: GraphModule, inputs: Sequence[Any], weights: Sequence[Tensor]
) -> Callable[..., Any]:
    return function_of(module)
