"""CppFragment: how one family of structures or codecs is read in generated C++."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch

from sparsecompile.errors import RegistrationError, Reject
from sparsecompile.formats.codec import Codec
from sparsecompile.formats.structure import Structure
from sparsecompile.kernels.spec import KernelSpec
from sparsecompile.kernels.template import Fragment
from sparsecompile.registry import Registry

ELEMENTS = {torch.float32: "float", torch.bfloat16: "bfloat16", torch.float16: "float16"}
"""C++ element type of each dtype; `to_float` and `from_float` of the prelude convert."""


class CppFragment(Fragment):
    """Reads one family in C++, after `text/prelude.h` and a `Weight` made of all `fields`.

    `Weight` holds `n`, `k`, `slots` and one pointer for each tensor of the Packed. A **structure**
    defines, inside an anonymous namespace:

    - `constexpr int column_padding`: how far beyond `k` visited columns may lie (x is zero there);
    - `constexpr int slots_per_vector`: width of `visit_row_vectors`, a power of two; 1 for none;
    - `constexpr bool vectors_are_cheap`: whether a vector of x comes without reading its elements
      one by one, so that `visit_row_vectors` is good for several rows of x;
    - `int64_t first_slot(const Weight& w, int64_t row)`: what `cursor` starts a row with;
    - `void visit_row(const Weight& w, int64_t row, int64_t& cursor, int64_t from, int64_t to,
      Visit&& visit)`: call `visit(lane<u>(), column, slot)` for every slot of the row whose
      column (or group, or block) begins in `[from, to)`, and move `cursor` behind them. `u` in
      0..3 tells which of several sums the term goes to. A row is visited from left to right in
      parts; `from` is 0 or the last `to`, and `to` is `k` or a multiple of 8;
    - where `slots_per_vector > 1`, `void visit_row_vectors(const Weight& w, int64_t row,
      VisitVector&& visit_vector, Visit&& visit)`: the whole row, `visit_vector(lane<u>(), slot,
      activations, column)` for every `slots_per_vector` consecutive slots, where `activations(x)`
      is the vector of `x[column]` and `column(i)` the column of the i-th, ascending, and `visit`
      as above for slots left over.

    A **codec** defines, for the value that is exact in float32 and before any rounding to the
    weight's dtype, `float decode(const Weight& w, int64_t row, int64_t column, int64_t slot)` and
    `template <int count, class Column> Floats<count> decode_vector(const Weight& w, int64_t row,
    int64_t slot, Column&& column)` for `count` consecutive slots of one row. Columns may lie in
    the padding. Where its `Codec.coding` says that values are floats or integers, it also defines
    `uint32_t code(const Weight& w, int64_t slot)`: the bits of a float, or the integer and half of
    what its bits can count.
    """

    language: ClassVar[str] = "cpp"

    @abstractmethod
    def fields(self, part: Structure | Codec, spec: KernelSpec) -> dict[str, str]:
        """C++ element type of each tensor by name, in the order of `Packed.tensors`."""


def fragment_of(registry: Registry, part: Structure | Codec) -> CppFragment:
    """The C++ fragment of a structure or codec.

    Raises:
        Reject: there is none.
    """
    family = part.family
    try:
        fragment = registry.get(Fragment, f"cpp/{family}")
    except RegistrationError as error:
        raise Reject(f"no C++ fragment reads {family!r}") from error
    if not isinstance(fragment, CppFragment):
        raise Reject(f"the C++ fragment of {family!r} is not a CppFragment")
    return fragment
