// sparsecompile::unpack and unpack_rows: the dense weight, or rows of it, from a layout.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

namespace {

// Check that rows [first, first + n) of a layout can be unpacked like a tensor.
void check_unpackable(const SCLayoutHeader* header, const Tensor& like, int64_t n, int64_t k,
                      int64_t first, const SCKernel& kernel) {
  TORCH_CHECK(first >= 0 && n >= 0 && n <= header->n - first && k == header->k,
              "sparsecompile: unpack to [", n, ", ", k, "] from row ", first,
              ", the packed weight is [", header->n, ", ", header->k, "]");
  TORCH_CHECK(like.scalar_type() == dtype_of(kernel) || like.scalar_type() == at::kFloat,
              "sparsecompile: unpack like ", like.scalar_type(), ", the packed weight is ",
              dtype_of(kernel));
}

Tensor unpack_cpu(const Tensor& weight, const Tensor& like, int64_t n, int64_t k, int64_t key,
                  int64_t first) {
  if (is_dense(weight, key)) return weight.narrow(0, first, n).to(like.options(), false, true);
  const SCLayoutHeader* header = layout_of(weight);
  const SCKernel& kernel = kernel_of(key, header);
  check_unpackable(header, like, n, k, first, kernel);
  Tensor dense = at::empty({n, k}, like.options());
  const bool in_float32 = like.scalar_type() == at::kFloat;
  kernel.unpack(header, first, n, in_float32, dense.mutable_data_ptr(), at::get_num_threads());
  return dense;
}

Tensor unpack_rows_cpu(const Tensor& weight, const Tensor& rows, const Tensor& like, int64_t n,
                       int64_t k, int64_t key, int64_t first) {
  const SCLayoutHeader* header = layout_of(weight);
  const SCKernel& kernel = kernel_of(key, header);
  check_unpackable(header, like, n, k, first, kernel);
  const Tensor wanted = rows.to(at::kLong).contiguous();
  const int64_t* row = wanted.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < wanted.numel(); ++i)
    TORCH_CHECK_INDEX(0 <= row[i] && row[i] < n, "sparsecompile: row ", row[i], " of ", n);
  at::DimVector shape(rows.sizes());
  shape.push_back(k);
  Tensor dense = at::empty(shape, like.options());
  const bool in_float32 = like.scalar_type() == at::kFloat;
  char* out = static_cast<char*>(dense.mutable_data_ptr());
  const int64_t row_bytes = k * dense.element_size();
  at::parallel_for(0, wanted.numel(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      kernel.unpack(header, first + row[i], 1, in_float32, out + i * row_bytes, 1);
  });
  return dense;
}

}  // namespace

TORCH_LIBRARY_IMPL(sparsecompile, CPU, m) {
  m.impl("unpack", &unpack_cpu);
  m.impl("unpack_rows", &unpack_rows_cpu);
}
