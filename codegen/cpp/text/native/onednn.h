// sparsecompile::dense_linear: a dense weight in oneDNN's own order.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

namespace at::native {
// libtorch has it for AOTInductor, which keeps such weights in files; not where it has no oneDNN.
__attribute__((weak, visibility("default"))) Tensor mkldnn_tensor_from_data_ptr(
    void* data, IntArrayRef dims, ScalarType dtype, Device device, const uint8_t* order,
    int64_t order_bytes);
}  // namespace at::native

namespace {

// SCLayoutHeader::layout of the first of `dtypes`, the others follow; `slots` are the bytes of the order.
constexpr int64_t onednn_layout = 1;

bool is_ordered(const Tensor& weight) { return weight.scalar_type() == at::kByte; }

// Rows of a dense weight, whatever its order.
int64_t rows_of(const Tensor& weight) {
  if (!is_ordered(weight)) return weight.size(0);
  TORCH_CHECK(weight.device().is_cpu() && weight.dim() == 1 &&
                  weight.numel() >= (int64_t)sizeof(SCLayoutHeader) && weight.is_contiguous(),
              "sparsecompile: a dense weight in oneDNN's order must be uint8, one-dimensional and "
              "contiguous on the CPU");
  const auto* header = static_cast<const SCLayoutHeader*>(weight.const_data_ptr());
  const int64_t dtype = header->layout - onednn_layout;
  TORCH_CHECK(0 <= dtype && dtype < 3 && header->total_bytes == weight.numel(),
              "sparsecompile: these bytes are no dense weight in oneDNN's order");
  return header->n;
}

// x @ weight.T + bias
Tensor linear_ordered(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  const int64_t n = rows_of(weight);
  const auto* header = static_cast<const SCLayoutHeader*>(weight.const_data_ptr());
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == header->k, "sparsecompile: x has shape ", x.sizes(),
              ", its last dimension must be ", header->k);
  const at::ScalarType dtype = dtypes[header->layout - onednn_layout];
  TORCH_CHECK(x.scalar_type() == dtype, "sparsecompile: x is ", x.scalar_type(),
              ", the dense weight ", dtype);
  TORCH_CHECK(at::native::mkldnn_tensor_from_data_ptr,
              "sparsecompile: this torch was built without oneDNN");
  const auto* bytes = reinterpret_cast<const char*>(header);
  const Tensor ordered = at::native::mkldnn_tensor_from_data_ptr(
      const_cast<char*>(bytes) + header->offsets[1], {n, header->k}, x.scalar_type(), at::kCPU,
      reinterpret_cast<const uint8_t*>(bytes) + header->offsets[0], header->slots);
  using Linear = Tensor(const Tensor&, const Tensor&, const OptionalTensor&, std::string_view,
                        c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto linear = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                                 .typed<Linear>();
  return linear.call(x, ordered, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

Tensor dense_linear_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                        int64_t n) {
  TORCH_CHECK(is_ordered(weight) && rows_of(weight) == n, "sparsecompile: n is ", n,
              ", the dense weight has ", rows_of(weight), " rows");
  // oneDNN refuses products of nothing.
  if (x.numel() == 0) return at::linear(x, at::empty({n, x.size(-1)}, x.options()), bias);
  return linear_ordered(x.contiguous(), weight, bias);
}

}  // namespace

TORCH_LIBRARY_IMPL(sparsecompile, CPU, m) { m.impl("dense_linear", &dense_linear_cpu); }
