"""`columns`: a kernel that reads the kept columns of x once for all rows of W."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparse_columns.structure import Columns
from sparsecompile import KernelSpec, Packed, Registry, Reject, Schedule, Source, Target, Template
from sparsecompile.codegen.cpp.epilogues import check_epilogue, render_epilogue
from sparsecompile.codegen.cpp.fragment import ELEMENTS
from sparsecompile.codegen.cpp.layout import concatenate
from sparsecompile.codegen.cpp.text import read

KERNEL = """\
using Element = {element};

namespace {{

struct Weight {{
  int64_t n, k, count;
  const int32_t* kept;
  const Element* values;

  explicit Weight(const void* layout) {{
    const char* bytes = static_cast<const char*>(layout);
    const SCLayoutHeader& header = *static_cast<const SCLayoutHeader*>(layout);
    n = header.n;
    k = header.k;
    count = n ? header.slots / n : 0;
    kept = reinterpret_cast<const int32_t*>(bytes + header.offsets[0]);
    values = reinterpret_cast<const Element*>(bytes + header.offsets[1]);
  }}
}};

float element(const void* tensor, int64_t i) {{
  return tensor ? to_float(static_cast<const Element*>(tensor)[i]) : 0.0f;
}}

}}  // namespace

SC_EXPORT int64_t sc_workspace(const void* layout, int64_t, int64_t) {{
  return sizeof(float) * Weight(layout).count;
}}

SC_EXPORT void sc_linear_columns(const SCLinearArguments* a) {{
  const Weight w(a->weight);
  float* x = static_cast<float*>(a->workspace);
  for (int64_t m = 0; m < a->m; ++m) {{
    for (int64_t i = 0; i < w.count; ++i) x[i] = element(a->x, m * w.k + w.kept[i]);
    for (int64_t row = 0; row < w.n; ++row) {{
      float sum = element(a->bias, row);
      for (int64_t i = 0; i < w.count; ++i) sum += x[i] * to_float(w.values[row * w.count + i]);
      const int64_t at = m * w.n + row;
      const float y = epilogue(sum, element(a->operand0, at), element(a->operand1, at));
      static_cast<Element*>(a->y)[at] = from_float<Element>(y);
    }}
  }}
}}

SC_EXPORT void sc_finish(const SCLinearArguments* a) {{
  Element* y = static_cast<Element*>(a->y);
  for (int64_t i = 0; i < a->m * Weight(a->weight).n; ++i) {{
    const float value = epilogue(to_float(y[i]), element(a->operand0, i), element(a->operand1, i));
    y[i] = from_float<Element>(value);
  }}
}}

template <class Out>
void unpack(const Weight& w, int64_t first, int64_t rows, Out* out) {{
  std::memset(out, 0, sizeof(Out) * rows * w.k);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < w.count; ++i)
      out[row * w.k + w.kept[i]] = from_float<Out>(to_float(w.values[(first + row) * w.count + i]));
}}

SC_EXPORT void sc_unpack(const void* layout, int64_t first, int64_t rows, int64_t in_float32,
                         void* dense, int64_t) {{
  const Weight w(layout);
  if (in_float32) return unpack(w, first, rows, static_cast<float*>(dense));
  unpack(w, first, rows, static_cast<Element*>(dense));
}}
"""


class ColumnsLinear(Template):
    """Without fragments: this one structure, float values."""

    name = "columns"
    language = "cpp"

    def supports(self, spec: KernelSpec, target: Target, registry: Registry) -> None:
        """Return for `columns/float`.

        Raises:
            Reject: another format, or an unknown epilogue step.
        """
        if spec.format.structure != Columns() or spec.format.codec.family != "float":
            raise Reject(f"made for columns/float, not for {spec.format}")
        if spec.activations != "float":
            raise Reject(f"activations stay as they are here, {spec.activations} is asked for")
        check_epilogue(spec.epilogue)

    def schedules(self, spec: KernelSpec, target: Target) -> Sequence[Schedule]:
        """One."""
        return (Schedule(),)

    def prepack(self, packed: Packed, schedule: Schedule, registry: Registry) -> Tensor:
        """The tensors of the Packed, concatenated."""
        return concatenate(self.name, packed)

    def render(
        self, spec: KernelSpec, schedule: Schedule, target: Target, registry: Registry
    ) -> Source:
        """Arguments, prelude, epilogue, kernel."""
        kernel = KERNEL.format(element=ELEMENTS[spec.dtype])
        head = f"// {spec}\n// template: columns; target: {target}\n"
        parts = (
            head,
            *map(read, ("arguments.h", "prelude.h", "numbers.h")),
            render_epilogue(spec.epilogue),
        )
        text = "\n".join((*parts, kernel))
        return Source(f"columns_{spec.identifier}", "cpp", text, (("sc_linear_columns", None),))


COMPONENTS = (ColumnsLinear(),)
