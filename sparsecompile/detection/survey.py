"""Survey: what every format finds in one weight, and which stores it in the fewest bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.decomposition import Decomposition
from sparsecompile.formats.detector import Detector
from sparsecompile.formats.expression import Expression
from sparsecompile.formats.occupancy import Occupancy
from sparsecompile.formats.packed import Format
from sparsecompile.kernels.codegen import Device
from sparsecompile.kernels.spec import KernelSpec, Spec, SpecOf
from sparsecompile.structures.dense import Dense
from sparsecompile.weights.cache import PACK_CACHE
from sparsecompile.weights.expression import Binding, Leaf, evaluate
from sparsecompile.weights.packed_tensor import PackedTensor
from sparsecompile.weights.packing import stored_parts
from sparsecompile.weights.parts import has_parts


@dataclass(frozen=True)
class Finding:
    """What one format, or decomposition, found in a weight.

    Attributes:
        format: its name, such as `n_m[2:4]/float` or `outlier_columns`.
        nbytes: bytes the weight takes in it, or None when it does not fit.
        reason: the refusal when it does not fit, else empty.
    """

    format: str
    nbytes: int | None
    reason: str = ""


@dataclass(frozen=True)
class Survey:
    """What every format found.

    Attributes:
        shape: `(n, k)`.
        dtype: such as `bfloat16`.
        dense_bytes: bytes of the dense weight.
        zeros: share of zeros, 0 to 1.
        findings: one a format, and where formats are lossless one a decomposition, unless this is
            a part of a weight.
        best: the format that takes the fewest bytes, or None when none is smaller than dense.
        splits: what was found in the parts of the weight, by the decompositions that are smaller
            than dense.
    """

    shape: tuple[int, int]
    dtype: str
    dense_bytes: int
    zeros: float
    findings: tuple[Finding, ...]
    best: Format | None
    splits: tuple[tuple[Decomposition, Expression[Survey]], ...] = ()

    @property
    def best_bytes(self) -> int:
        """Bytes in the best format, or dense."""
        found = {f.format: f.nbytes for f in self.findings if f.nbytes is not None}
        return found.get(str(self.best), self.dense_bytes)

    def format(self) -> Format:
        """The chosen format.

        Raises:
            Reject: none is smaller than the dense weight.
        """
        if self.best is not None:
            return self.best
        if not self.dense_bytes:
            raise Reject("the weight is empty")
        for finding in self.findings:
            # Every weight is dense: where that was asked for, its refusal is not about zeros.
            if finding.format.startswith("dense/"):
                raise Reject(finding.reason)
        if not self.zeros:
            raise Reject("the weight holds no zeros")
        raise Reject("no format that fits is smaller than dense")


def with_codec(formats: tuple[Format, ...], codec: Codec) -> tuple[Format, ...]:
    """The structures of some formats with another codec, `dense` first."""
    structures = dict.fromkeys((Dense(), *(f.structure for f in formats)))
    return tuple(Format(structure, codec) for structure in structures)


def survey(
    binding: Binding,
    tensors: tuple[Tensor, ...],
    formats: tuple[Format, ...],
    device: Device,
    spec: SpecOf = KernelSpec,
) -> Survey:
    """Ask every format for a weight.

    Args:
        binding: the weight.
        tensors: the live tensors of its leaves, in order.
        formats: what to ask, in order of preference among equals.
        device: must have a kernel for a format.
        spec: of the kernel that the weight is for.

    Raises:
        Reject: the weight cannot be looked at.
    """
    if any(isinstance(tensor, PackedTensor) for tensor in tensors):
        return _survey_stored(binding, tensors, formats, device, spec)
    asked = tuple(spec(format, torch.float32) for format in formats)
    purpose = ("survey", asked, device, device.registry.revision)

    def look() -> Survey:
        dense = Occupancy(evaluate(binding, tensors))
        found = _look(formats, device, spec, dense)
        if has_parts(binding):
            return found
        found = _with_detected(found, formats, device, spec, dense)
        return _with_splits(found, formats, device, spec, dense)

    return PACK_CACHE.get(binding, tensors, purpose, look).value


def _survey_stored(
    binding: Binding,
    tensors: tuple[Tensor, ...],
    formats: tuple[Format, ...],
    device: Device,
    spec: SpecOf,
) -> Survey:
    """What a weight is that is packed in the model: places without a slot count as its zeros.

    Raises:
        Reject: it cannot be taken as it is.
    """
    parts = stored_parts(binding, tensors)
    if len(parts) != 1 and isinstance(binding, Leaf):
        raise Reject("the model holds the weight packed as an expression: only linears read those")
    if len(parts) != 1:
        raise Reject(f"the graph computes {binding} of a weight that is packed in the model")
    (stored,) = parts
    asked = {f.codec for f in formats}
    if asked and not any(codec.lossless for codec in asked) and stored.format.codec not in asked:
        raise Reject(f"the model holds the weight packed as {stored.format}")
    device.check(spec(stored.format, stored.dtype))
    size, slots = stored.shape[0] * stored.shape[1], stored.slots
    return Survey(
        stored.shape,
        str(stored.dtype).removeprefix("torch."),
        size * stored.dtype.itemsize,
        max(0.0, 1 - slots / size) if size else 0.0,
        (Finding(str(stored.format), stored.format.nbytes(stored.shape, slots, stored.dtype)),),
        stored.format,
    )


def _with_splits(
    found: Survey, formats: tuple[Format, ...], device: Device, spec: SpecOf, dense: Occupancy
) -> Survey:
    """With what the decompositions find that lose nothing, where nothing is to be lost."""
    findings, splits = list(found.findings), []
    asked = device.registry.all(Decomposition) if all(f.codec.lossless for f in formats) else ()
    for decomposition in (d for d in asked if d.exact):
        try:
            decomposition = decomposition.find(dense)
            parts = decomposition.parts(dense.weight).map(Occupancy)
            surveys = parts.map(lambda part: _look(formats, device, spec, part))
            nbytes = sum(each.best_bytes for each in surveys.leaves())
            if nbytes >= found.dense_bytes:
                raise Reject(f"takes {nbytes:,} bytes, dense {found.dense_bytes:,}")
        except Reject as reject:
            findings.append(Finding(str(decomposition), None, reject.reason))
        else:
            findings.append(Finding(str(decomposition), nbytes))
            splits.append((decomposition, surveys))
    return replace(found, findings=tuple(findings), splits=tuple(splits))


def _look(
    formats: tuple[Format, ...], device: Device, spec: SpecOf, occupancy: Occupancy
) -> Survey:
    weight = occupancy.weight
    findings, fitting = _fitting(formats, device, spec, occupancy)
    return Survey(
        occupancy.shape,
        str(weight.dtype).removeprefix("torch."),
        _dense_bytes(occupancy),
        1 - occupancy.density,
        tuple(findings),
        min(fitting, key=lambda format: fitting[format], default=None),
    )


def _with_detected(
    found: Survey, formats: tuple[Format, ...], device: Device, spec: SpecOf, dense: Occupancy
) -> Survey:
    """With the smallest that detectors find and that holds the weight, if nothing is to be lost."""
    if not formats or not all(format.codec.lossless for format in formats):
        return found
    refused, detected = _detected(formats, device, spec, dense)
    findings, best = [*found.findings, *refused], found.best
    for format in sorted(detected, key=lambda format: detected[format]):
        if detected[format] >= found.best_bytes:
            break
        try:
            format.pack(dense)
        except Reject as reject:
            findings.append(Finding(str(format), None, reject.reason))
        else:
            findings.append(Finding(str(format), detected[format]))
            best = format
            break
    return replace(found, findings=tuple(findings), best=best)


def _fitting(
    formats: tuple[Format, ...], device: Device, spec: SpecOf, occupancy: Occupancy
) -> tuple[list[Finding], dict[Format, int]]:
    """What formats find, and the bytes of those that fit."""
    findings, fitting = [], {}
    for candidate in formats:
        try:
            nbytes = _bytes(candidate, occupancy)
            asked = spec(candidate, occupancy.weight.dtype)
            if refusal := _refusal(device, asked, device.registry.revision):
                raise Reject(refusal)
        except Reject as reject:
            findings.append(Finding(str(candidate), None, reject.reason))
        else:
            findings.append(Finding(str(candidate), nbytes))
            fitting[candidate] = nbytes
    return findings, fitting


def _detected(
    formats: tuple[Format, ...], device: Device, spec: SpecOf, occupancy: Occupancy
) -> tuple[list[Finding], dict[Format, int]]:
    """What detectors find, with the structures of some formats; the whole weight may differ."""
    findings: list[Finding] = []
    detected: dict[Format, int] = {}
    for detector in device.registry.all(Detector):
        try:
            codecs = detector.find(occupancy)
        except Reject as reject:
            findings.append(Finding(detector.name, None, reject.reason))
            continue
        for codec in codecs:
            refused, fitting = _fitting(with_codec(formats, codec), device, spec, occupancy)
            findings += [finding for finding in refused if finding.nbytes is None]
            detected |= fitting
    return findings, detected


def _dense_bytes(occupancy: Occupancy) -> int:
    return occupancy.weight.numel() * occupancy.weight.element_size()


@lru_cache(maxsize=256)
def _refusal(device: Device, spec: Spec, revision: int) -> str:
    """Why a device has no kernel for a spec, or empty: weights of a model ask for the same few."""
    try:
        device.check(spec)
    except Reject as reject:
        return reject.reason
    return ""


def _bytes(candidate: Format, occupancy: Occupancy) -> int:
    """Bytes of a weight in a format.

    Raises:
        Reject: it does not fit, takes as much as dense, or its codec cannot store a value.
    """
    is_full = occupancy.kept == occupancy.mask.numel()
    if candidate.codec.lossless and candidate.structure != Dense() and is_full:
        raise Reject("the weight holds no zeros")
    slots = candidate.structure.find(occupancy)
    nbytes = candidate.nbytes(occupancy.shape, slots, occupancy.weight.dtype)
    if nbytes >= (dense_bytes := _dense_bytes(occupancy)):
        raise Reject(f"takes {nbytes:,} bytes, dense {dense_bytes:,}")
    candidate.codec.check(occupancy.weight)
    return nbytes
