// sparsecompile::linear: memory and threads for the kernel, the dense linear where that is faster, and
// gradients.
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

namespace {

// x @ dense.T + bias, where the dense weight stands in up to three parts, one above the other, or in
// oneDNN's order in one.
Tensor linear_dense(const Tensor& x, const OptionalTensor& bias, const OptionalTensor* parts,
                    int64_t n) {
  int64_t there = 0;
  for (int i = 0; i < 3 && given(parts[i]); ++i) there += rows_of(*parts[i]);
  TORCH_CHECK(there == n, "sparsecompile: the dense weight has ", there, " rows, the packed one ",
              n);
  if (is_ordered(*parts[0])) return linear_ordered(x, *parts[0], bias);
  if (!given(parts[1])) return at::linear(x, *parts[0], bias);
  at::DimVector shape(x.sizes());
  shape.back() = n;
  Tensor y = at::empty(shape, x.options());
  const int64_t m = y.numel() / n;
  const Tensor rows_of_x = x.view({m, x.size(-1)}), rows_of_y = y.view({m, n});
  int64_t first = 0;
  for (int i = 0; i < 3 && given(parts[i]); ++i) {
    const int64_t rows = parts[i]->size(0);
    OptionalTensor part;
    if (given(bias)) part = bias->narrow(0, first, rows);
    Tensor out = rows_of_y.narrow(1, first, rows);
    at::linear_out(out, rows_of_x, *parts[i], part);
    first += rows;
  }
  return y;
}

Tensor linear_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                  const OptionalTensor& operand0, const OptionalTensor& operand1,
                  const OptionalTensor& dense0, const OptionalTensor& dense1,
                  const OptionalTensor& dense2, int64_t n, int64_t key) {
  SCLayoutHeader dense_shape{};
  const SCLayoutHeader* header = &dense_shape;
  const bool misfit = is_dense(weight, key);
  if (misfit) {
    TORCH_CHECK(weight.dim() == 2 && weight.device().is_cpu(),
                "sparsecompile: the dense weight must have two dimensions on the CPU, not ",
                weight.sizes(), " on ", weight.device());
    dense_shape.n = weight.size(0);
    dense_shape.k = weight.size(1);
  } else {
    header = layout_of(weight);
  }
  const SCKernel& kernel = misfit ? kernels_of(key).front() : kernel_of(key, header);
  TORCH_CHECK(n == header->n, "sparsecompile: n is ", n, ", the packed weight has ", header->n,
              " rows");
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == header->k, "sparsecompile: x has shape ", x.sizes(),
              ", its last dimension must be ", header->k);
  const Tensor input = check_input(x, "x", kernel);
  at::DimVector shape(x.sizes());
  shape.back() = n;
  int64_t m = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) m *= shape[i];

  Tensor bias_input, inputs[2];
  if (given(bias)) {
    TORCH_CHECK(bias->dim() == 1 && bias->size(0) == n, "sparsecompile: bias has shape ",
                bias->sizes(), ", it must be [", n, "]");
    bias_input = check_input(*bias, "bias", kernel);
  }
  const OptionalTensor* operands[2] = {&operand0, &operand1};
  for (int64_t i = 0; i < 2; ++i) {
    const bool is_given = given(*operands[i]);
    TORCH_CHECK(is_given == (i < kernel.operands), "sparsecompile: the epilogue reads ",
                kernel.operands, " tensors, operand", i, is_given ? " is one too many" : " is missing");
    if (!is_given) continue;
    const Tensor& operand = **operands[i];
    TORCH_CHECK(operand.sizes() == at::IntArrayRef(shape), "sparsecompile: operand", i,
                " has shape ", operand.sizes(), ", it must be ", at::IntArrayRef(shape));
    inputs[i] = check_input(operand, i ? "operand1" : "operand0", kernel);
  }

  int64_t range = 0;
  while (range + 1 < kernel.ranges && m > kernel.largest_m[range]) ++range;
  OptionalTensor dense[] = {dense0, dense1, dense2};
  if (misfit) dense[0] = weight, dense[1] = dense[2] = {};
  const bool runs_dense = misfit || (kernel.dense[range] && given(dense0));
  Tensor y = runs_dense && m && n ? linear_dense(input, bias, dense, n)
                                  : at::empty(shape, input.options());
  if (m == 0 || n == 0 || (runs_dense && !kernel.epilogue)) return y;
  SCLinearArguments arguments{};
  arguments.x = input.const_data_ptr();
  arguments.weight = header;
  arguments.bias = bias_input.defined() ? bias_input.const_data_ptr() : nullptr;
  arguments.operand0 = inputs[0].defined() ? inputs[0].const_data_ptr() : nullptr;
  arguments.operand1 = inputs[1].defined() ? inputs[1].const_data_ptr() : nullptr;
  arguments.y = y.mutable_data_ptr();
  arguments.m = m;
  arguments.threads = at::get_num_threads();
  if (runs_dense) {
    kernel.finish(&arguments);
    return y;
  }
  arguments.workspace = workspace.reserve(kernel.workspace[range](header, m, arguments.threads));
  kernel.linear[range](&arguments);
  workspace.trim();
  return y;
}

bool wants_gradient(const OptionalTensor& tensor) {
  return given(tensor) && tensor->requires_grad();
}

Tensor linear_autograd(c10::DispatchKeySet keys, const Tensor& x, const Tensor& weight,
                       const OptionalTensor& bias, const OptionalTensor& operand0,
                       const OptionalTensor& operand1, const OptionalTensor& dense0,
                       const OptionalTensor& dense1, const OptionalTensor& dense2, int64_t n,
                       int64_t key) {
  if (at::GradMode::is_enabled() &&
      (x.requires_grad() || wants_gradient(bias) || wants_gradient(operand0) ||
       wants_gradient(operand1))) {
    TORCH_CHECK(!kernels_of(key).front().epilogue,
                "sparsecompile: gradients through a fused epilogue are not supported: compile "
                "with gradients enabled, so that nothing is fused");
    using WithGrad = Tensor(const Tensor&, const Tensor&, const OptionalTensor&,
                            const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                            int64_t, int64_t);
    static const auto with_grad = c10::Dispatcher::singleton()
                                      .findSchemaOrThrow("sparsecompile::linear_with_grad", "")
                                      .typed<WithGrad>();
    return with_grad.call(x, weight, bias, dense0, dense1, dense2, n, key);
  }
  static const auto linear = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("sparsecompile::linear", "")
                                 .typed<decltype(linear_cpu)>();
  at::AutoDispatchBelowAutograd below;
  return linear.redispatch(keys & c10::after_autograd_keyset, x, weight, bias, operand0, operand1,
                           dense0, dense1, dense2, n, key);
}

}  // namespace

TORCH_LIBRARY_IMPL(sparsecompile, CPU, m) { m.impl("linear", &linear_cpu); }
TORCH_LIBRARY_IMPL(sparsecompile, Autograd, m) { m.impl("linear", &linear_autograd); }
