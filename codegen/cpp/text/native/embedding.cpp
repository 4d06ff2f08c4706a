// sparsecompile::embedding: rows of a packed table.
#include <ATen/ops/embedding.h>

namespace {

Tensor embedding_cpu(const Tensor& ids, const Tensor& weight, int64_t n, int64_t k,
                     at::ScalarType dtype, int64_t key) {
  if (is_dense(weight, key)) return at::embedding(weight, ids);
  return unpack_rows_cpu(weight, ids, at::empty({0}, at::dtype(dtype)), n, k, key, 0);
}

}  // namespace

TORCH_LIBRARY_IMPL(sparsecompile, CPU, m) { m.impl("embedding", &embedding_cpu); }
