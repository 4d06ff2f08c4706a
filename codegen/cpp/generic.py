"""The generic template: every structure x codec that has C++ fragments, any m."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparsecompile.codegen.cpp.epilogues import check_epilogue, render_epilogue
from sparsecompile.codegen.cpp.fragment import ELEMENTS, CppFragment
from sparsecompile.codegen.cpp.layout import concatenate
from sparsecompile.codegen.cpp.rounding import check_rounding, render_rounding
from sparsecompile.codegen.cpp.text import read
from sparsecompile.errors import RegistrationError, Reject
from sparsecompile.packed import Packed
from sparsecompile.registry import Registry
from sparsecompile.spec import KernelSpec, Schedule, Target
from sparsecompile.template import Fragment, Source, Template

BATCH_LANES = {"avx512": 64, "avx2": 32}
DECODE_ROWS = 8

HEAD = """\
// {spec}
// template: generic; schedule: {schedule}; target: {target}
// y[m, n] = epilogue(x[m, k] @ W[n, k].T + bias[n]); m, n and k are run-time values.
"""

WEIGHT = """\
namespace {{

using Element = {element};  // of x, bias, operands and y
constexpr int operand_count = {operands};

// Schedule.
{schedule}

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


class GenericLinear(Template):
    """Assembled from a structure's and a codec's fragments; the layout is the Packed itself."""

    name = "generic"
    language = "cpp"

    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return if both parts have C++ fragments.

        Raises:
            Reject: another device, no fragment, an unknown epilogue step or rounding of x.
        """
        if target.device != "cpu":
            raise Reject(f"C++ is for CPUs, not for {target.device}")
        if spec.dtype not in ELEMENTS:
            raise Reject(f"{spec.dtype} activations have no C++ type")
        for part in (spec.format.structure, spec.format.codec):
            _fragment(registry, part.family)
        check_epilogue(spec.epilogue)
        check_rounding(spec.activations)

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """The default for the target's vector width.

        `batch_lanes` rows of x share a tile; `batch_columns` columns of a tile stay in the
        innermost cache while `batch_rows` rows of W pass; below `region_work` multiply-adds
        no other thread is woken.
        """
        lanes = BATCH_LANES.get(target.isa, 16)
        choices = {
            "batch_lanes": lanes,
            "batch_columns": 4096 // lanes,
            "batch_rows": 64,
            "region_work": 1 << 16,
        }
        return (Schedule.of(choices),)

    def prepack(self, packed: Packed, schedule: Schedule) -> Tensor:
        """The tensors of the Packed, concatenated."""
        return concatenate(self.name, packed)

    def render(
        self, spec: KernelSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """Arguments, prelude, Weight, fragments, epilogue, loops: a file that stands alone."""
        structure = _fragment(registry, spec.format.structure.family)
        codec = _fragment(registry, spec.format.codec.family)
        fields = structure.fields(spec.format.structure, spec)
        fields |= codec.fields(spec.format.codec, spec)
        text = "\n".join(
            (
                HEAD.format(spec=spec, schedule=schedule, target=target),
                read("arguments.h"),
                read("prelude.h"),
                _weight(spec, schedule, fields),
                structure.render(spec.format.structure, spec),
                codec.render(spec.format.codec, spec),
                read("activations.h"),
                render_rounding(spec.activations),
                render_epilogue(spec.epilogue),
                read("generic.h"),
            )
        )
        kernels = (("sc_linear_decode", DECODE_ROWS), ("sc_linear_batch", None))
        return Source(f"generic_{spec.identifier}", "cpp", text, kernels)


def _fragment(registry: Registry, family: str) -> CppFragment:
    """The C++ fragment of a family.

    Raises:
        Reject: there is none.
    """
    try:
        fragment = registry.get(Fragment, f"cpp/{family}")
    except RegistrationError as error:
        raise Reject(f"no C++ fragment reads {family!r}") from error
    if not isinstance(fragment, CppFragment):
        raise Reject(f"the C++ fragment of {family!r} is not a CppFragment")
    return fragment


def _weight(spec: KernelSpec, schedule: Schedule, fields: dict[str, str]) -> str:
    members = (f"  const {ctype}* {name};" for name, ctype in fields.items())
    assignments = (
        f"    {name} = reinterpret_cast<const {ctype}*>(bytes + header.offsets[{i}]);"
        for i, (name, ctype) in enumerate(fields.items())
    )
    return WEIGHT.format(
        element=ELEMENTS[spec.dtype],
        operands=spec.operands,
        schedule="\n".join(f"constexpr int64_t {c} = {v};" for c, v in schedule.choices),
        members="\n".join(members),
        assignments="\n".join(assignments),
    )


COMPONENTS = (GenericLinear(),)
