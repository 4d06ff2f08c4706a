"""`Weight`: the canonical tensors of a Packed as C++ pointers, and a kernel's constants."""

from __future__ import annotations

from collections.abc import Mapping

from sparsecompile.codegen.cpp.fragment import ELEMENTS, CppFragment
from sparsecompile.kernels.spec import KernelSpec

TEXT = """\
namespace {{

using Element = {element};  // of x, bias, operands and y
{scale}constexpr int operand_count = {operands};

// Schedule.
{constants}

// The weight, as the pointers in its layout.
struct Weight {{
  int64_t n, k, slots;
{members}

  explicit Weight(const void* layout) {{
    const char* bytes = static_cast<const char*>(layout);
    const SCLayoutHeader& header = *static_cast<const SCLayoutHeader*>(layout);
    n = header.n;
    k = header.k;
    slots = header.slots;
{assignments}
  }}
}};

}}  // namespace
"""


def render_weight(
    spec: KernelSpec, constants: Mapping[str, int], structure: CppFragment, codec: CppFragment
) -> str:
    """Element type, constants, and the struct with one pointer for each tensor."""
    fields = structure.fields(spec.format.structure, spec)
    fields |= codec.fields(spec.format.codec, spec)
    members = (f"  const {ctype}* {name};" for name, ctype in fields.items())
    assignments = (
        f"    {name} = reinterpret_cast<const {ctype}*>(bytes + header.offsets[{i}]);"
        for i, (name, ctype) in enumerate(fields.items())
    )
    coding = spec.format.codec.coding(spec.dtype)
    scale = (
        f"using Scale = {ELEMENTS[coding.scales]};  // of values of W, where these have scales\n"
        if coding
        else ""
    )
    return TEXT.format(
        element=ELEMENTS[spec.dtype],
        scale=scale,
        operands=spec.operands,
        constants="\n".join(f"constexpr int64_t {c} = {v};" for c, v in constants.items()),
        members="\n".join(members),
        assignments="\n".join(assignments),
    )
