"""The error ratio law and those of formats, and the weights that they are tested with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from sparsecompile.errors import Reject
from sparsecompile.formats.occupancy import FLOAT_DTYPES, Occupancy
from sparsecompile.formats.packed import Format, Packed
from sparsecompile.formats.structure import Structure
from sparsecompile.testing.coding_laws import check_coding

SPECIAL_VALUES = (float("nan"), float("inf"), -float("inf"), -0.0, 1e-45, 65504.0)


def assert_no_worse(
    ours: Tensor, eager: Tensor, exact: Tensor, *, scale: Tensor | float | None = None
) -> None:
    """The error ratio law: ours is at most twice as far from the exact result as torch's.

    `|ours - exact| <= 2 |eager - exact| + eps * scale`, in the largest element, with eps of the
    result's dtype: where torch happens to round exactly, one rounding more is allowed.

    Args:
        ours: the result under test.
        eager: torch's result, of the same shape and dtype.
        exact: the same in float64.
        scale: size of what was summed; by default the largest finite exact value.

    Raises:
        AssertionError: it is worse, or NaN and infinities stand in other places.
    """
    assert ours.shape == eager.shape, f"shape {tuple(ours.shape)}, not {tuple(eager.shape)}"
    assert ours.dtype == eager.dtype, f"dtype {ours.dtype}, not {eager.dtype}"
    finite = eager.isfinite()
    assert torch.equal(ours.isnan(), eager.isnan()), "NaN in other places than torch's"
    same = ours.nan_to_num(0)[~finite] == eager.nan_to_num(0)[~finite]
    assert bool(same.all()), "infinities in other places than torch's"
    if not bool(finite.any()):
        return
    exact = exact.double()[finite]
    size = float(exact.abs().max()) if scale is None else float(torch.as_tensor(scale).max())
    error = float((ours.double()[finite] - exact).abs().max())
    allowed = 2 * float((eager.double()[finite] - exact).abs().max())
    allowed += torch.finfo(ours.dtype).eps * size
    assert error <= allowed, f"error {error:.3g}, allowed {allowed:.3g}"


@st.composite
def weights(
    draw: st.DrawFn,
    structure: Structure,
    dtypes: Sequence[torch.dtype] = FLOAT_DTYPES,
    *,
    special: bool = True,
    largest: int = 70,
) -> Tensor:
    """Weights `[n, k]` that have a structure.

    Empty ones, single rows, ragged tails, all-zero rows, everything kept, NaN, infinities and
    negative zeros in kept places, and strides that are not contiguous.

    Args:
        draw: given by hypothesis.
        structure: what the weights have.
        dtypes: their dtypes.
        special: whether kept values may be NaN or infinite.
        largest: largest side.
    """
    n, k = draw(st.integers(0, largest)), draw(st.integers(0, largest))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    weight = torch.randn(n, k, generator=generator).to(draw(st.sampled_from(dtypes)))
    weight = torch.where(draw_mask(draw, structure, weight), weight, -torch.zeros_like(weight))
    if n and draw(st.booleans()):
        weight[draw(st.integers(0, n - 1))] = 0
    if special and bool((weight != 0).any()):
        place = (weight != 0).nonzero()[0]
        weight[tuple(place)] = draw(st.sampled_from(SPECIAL_VALUES))
    layout = draw(st.sampled_from(("contiguous", "transposed", "strided")))
    if layout == "transposed":
        return weight.t().contiguous().t()
    if layout == "strided":
        return torch.stack((weight, weight + 1), dim=2)[:, :, 0]
    return weight


def draw_mask(draw: st.DrawFn, structure: Structure, weight: Tensor) -> Tensor:
    """Where a structure, or chance, keeps values of a weight."""
    share = draw(st.sampled_from((0.0, 0.3, 0.5, 0.9, 1.0)))
    for sparsity in (None, share):
        try:
            return structure.prune(weight, sparsity)
        except ValueError:
            continue
    return torch.ones_like(weight, dtype=torch.bool)


def check_format(format: Format, weight: Tensor) -> None:
    """A format packs what it finds and gives it back, and takes the bytes it says.

    Nowhere does it keep more than its structure promises.

    A lossy codec gives back what is within its bound, and the same bytes when its decoded values
    are encoded again. Its coding is how values are stored.

    Raises:
        AssertionError: a law does not hold.
    """
    structure = format.structure
    occupancy = Occupancy(weight)
    try:
        slots = structure.find(occupancy)
        format.codec.check(occupancy.weight)
    except Reject as found:
        _check_refusal(format, weight, found)
        return
    packed = format.pack(weight)
    dense = packed.unpack()
    assert dense.dtype == weight.dtype
    kept = packed.unpack(torch.float32)
    assert packed.exact == torch.equal(kept.nan_to_num(), weight.float().nan_to_num()), "exact"
    assert packed.exact or not format.codec.lossless
    if format.codec.lossless:
        torch.testing.assert_close(dense, weight, rtol=0, atol=0, equal_nan=True)
        _check_same_tensors(packed.tensors, format.pack(dense).tensors)
    else:
        _check_lossy(packed, weight)
    check_coding(packed)
    assert packed.slots == slots
    assert packed.nbytes == format.nbytes(occupancy.shape, slots, weight.dtype)
    positions = structure.positions(packed.index, packed.shape)
    rows, columns = structure.padded(packed.shape)
    assert positions.numel() == slots
    assert positions.unique().numel() == slots, "two slots in one place"
    assert not slots or 0 <= int(positions.min()) <= int(positions.max()) < rows * columns
    kept = torch.zeros(rows, columns, dtype=torch.int64)
    kept.view(-1)[positions] = 1
    for group in (1, 2, 3, 4, 8, 16):
        counts = torch.nn.functional.pad(kept, (0, -columns % group)).view(-1, group).sum(1)
        promise = structure.most_kept(group)
        assert not counts.numel() or int(counts.max()) <= promise, f"{promise} of {group}"
    padded = torch.nn.functional.pad(
        weight, (0, columns - weight.shape[1], 0, rows - weight.shape[0])
    )
    torch.testing.assert_close(
        structure.gather(weight, packed.index),
        padded.reshape(-1)[positions],
        rtol=0,
        atol=0,
        equal_nan=True,
    )


def _check_lossy(packed: Packed, weight: Tensor) -> None:
    """Decoded values are within the codec's bound, are those of `unpack`, and are encoded alike."""
    codec, places = packed.format.codec, packed.places
    decoded = codec.decode(packed.values, places, torch.float32)
    original = packed.format.structure.gather(weight, packed.index).double()
    bound = codec.error_bound(packed.values, places).double()
    # What is rounded to an integer was divided in float32.
    assert bool(((decoded - original).abs() <= bound * (1 + 1e-4)).all()), "beyond the error bound"
    exact = packed.unpack(torch.float32)
    assert torch.equal(exact.to(weight.dtype), packed.unpack())
    coding = codec.coding(weight.dtype)
    if coding is None or coding.offsets is None:
        again = codec.encode(decoded, places)
        same = {name: again[name].to(tensor.dtype) for name, tensor in packed.values.items()}
        _check_same_tensors(packed.values, same)


def _check_same_tensors(first: Mapping[str, Tensor], again: Mapping[str, Tensor]) -> None:
    for name, tensor in first.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=0, equal_nan=True)


def _check_refusal(format: Format, weight: Tensor, found: Reject) -> None:
    """What `find` or the codec's `check` refuses `pack` refuses, with the same reason."""
    refusal = ""
    try:
        format.pack(weight)
    except Reject as refused:
        refusal = refused.reason
    assert refusal == found.reason, f"{format} does not find and pack the same"
