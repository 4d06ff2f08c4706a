// The native library behind torch.ops.sparsecompile: checks arguments, finds the kernel of a key,
// gives it memory and threads. Built once and cached; generated kernels register themselves here
// through Python. arguments.h comes before this text.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <vector>

// How Python registers a kernel; native.py has the same fields.
struct SCKernel {
  int64_t key;
  int64_t layout;      // SCLayoutHeader::layout of the weights it reads
  int64_t dtype;       // of x, bias, operands and y: 0 float32, 1 bfloat16, 2 float16
  int64_t operands;    // how many tensors the epilogue reads
  int64_t epilogue;    // whether there is one
  int64_t ranges;      // how many of the following are used
  int64_t largest_m[16];  // by rising m; the last range has no end
  SCLinear linear[16];
  SCWorkspace workspace[16];
  int64_t dense[16];  // whether torch's dense linear runs, where the dense weight is at hand
  SCUnpack unpack;
  SCLinear finish;
};

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Kernels by key. A registration publishes a new table; old ones are kept, since a call may
// still read them, and registrations are few.
using Table = std::unordered_map<int64_t, SCKernel>;
std::atomic<const Table*> table{new Table()};
std::mutex registration;

const SCKernel& kernel_of(int64_t key) {
  const Table& kernels = *table.load(std::memory_order_acquire);
  const auto found = kernels.find(key);
  TORCH_CHECK(found != kernels.end(), "sparsecompile has no kernel ", key,
              " in this process: compile the model again with torch.compile(..., "
              "backend=\"sparse\") before calling it");
  return found->second;
}

at::ScalarType dtype_of(const SCKernel& kernel) {
  constexpr at::ScalarType types[] = {at::kFloat, at::kBFloat16, at::kHalf};
  return types[kernel.dtype];
}

// The layout behind `weight`, which may be a view of its header alone.
const SCLayoutHeader* layout_of(const Tensor& weight, const SCKernel& kernel) {
  TORCH_CHECK(weight.scalar_type() == at::kByte && weight.device().is_cpu(),
              "sparsecompile: the packed weight must be uint8 on the CPU, not ",
              weight.scalar_type(), " on ", weight.device());
  TORCH_CHECK(weight.dim() == 1 && weight.numel() >= (int64_t)sizeof(SCLayoutHeader) &&
                  weight.stride(0) == 1,
              "sparsecompile: the packed weight must be one-dimensional, contiguous and hold a "
              "header of ", sizeof(SCLayoutHeader), " bytes; pass what the kernel's prepack made");
  const auto* header = static_cast<const SCLayoutHeader*>(weight.const_data_ptr());
  TORCH_CHECK(reinterpret_cast<uintptr_t>(header) % 64 == 0,
              "sparsecompile: the packed weight must begin at a multiple of 64 bytes; clone() it");
  TORCH_CHECK(header->layout == kernel.layout,
              "sparsecompile: the packed weight has layout ", header->layout, ", kernel ",
              kernel.key, " reads layout ", kernel.layout,
              "; prepack the weight with this kernel");
  const int64_t there = (int64_t)weight.storage().nbytes() - weight.storage_offset();
  TORCH_CHECK(header->total_bytes <= there, "sparsecompile: the packed weight is cut off: ", there,
              " of ", header->total_bytes, " bytes are there; prepack it again");
  return header;
}

Tensor check_input(const Tensor& tensor, const char* name, const SCKernel& kernel) {
  TORCH_CHECK(tensor.device().is_cpu(), "sparsecompile: ", name, " must be on the CPU, not on ",
              tensor.device());
  TORCH_CHECK(tensor.scalar_type() == dtype_of(kernel), "sparsecompile: ", name, " is ",
              tensor.scalar_type(), ", the kernel was made for ", dtype_of(kernel),
              "; convert it or compile the model in its dtype");
  return tensor.contiguous();
}

// A thread's memory for transposed activations: grows to what calls need, up to a limit.
struct Workspace {
  static constexpr int64_t kept_bytes = int64_t{64} << 20;
  void* memory = nullptr;
  int64_t bytes = 0;

  void* reserve(int64_t needed) {
    if (needed > bytes) {
      release();
      const int64_t rounded = (needed + 4095) / 4096 * 4096;
      memory = std::aligned_alloc(4096, rounded);
      TORCH_CHECK(memory, "sparsecompile: no memory for a workspace of ", rounded, " bytes");
      bytes = rounded;
    }
    return memory;
  }
  void trim() {
    if (bytes > kept_bytes) release();
  }
  void release() {
    std::free(memory);
    memory = nullptr;
    bytes = 0;
  }
  ~Workspace() { release(); }
};
thread_local Workspace workspace;

bool given(const OptionalTensor& tensor) { return tensor.has_value() && tensor->defined(); }

// x @ dense.T + bias, where the dense weight stands in up to three parts, one above the other.
Tensor linear_dense(const Tensor& x, const OptionalTensor& bias, const OptionalTensor* parts,
                    int64_t n) {
  int64_t there = 0;
  for (int i = 0; i < 3 && given(parts[i]); ++i) there += parts[i]->size(0);
  TORCH_CHECK(there == n, "sparsecompile: the dense weight has ", there, " rows, the packed one ",
              n);
  if (!given(parts[1])) return at::linear(x, *parts[0], bias);
  at::DimVector shape(x.sizes());
  shape.back() = n;
  Tensor y = at::empty(shape, x.options());
  int64_t first = 0;
  for (int i = 0; i < 3 && given(parts[i]); ++i) {
    const int64_t rows = parts[i]->size(0);
    OptionalTensor part;
    if (given(bias)) part = bias->narrow(0, first, rows);
    y.narrow(-1, first, rows).copy_(at::linear(x, *parts[i], part));
    first += rows;
  }
  return y;
}

Tensor linear_cpu(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                  const OptionalTensor& operand0, const OptionalTensor& operand1,
                  const OptionalTensor& dense0, const OptionalTensor& dense1,
                  const OptionalTensor& dense2, int64_t n, int64_t key) {
  const SCKernel& kernel = kernel_of(key);
  const SCLayoutHeader* header = layout_of(weight, kernel);
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
  const OptionalTensor dense[] = {dense0, dense1, dense2};
  const bool runs_dense = kernel.dense[range] && given(dense0);
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

// The layout of which rows [first, first + n) are to be unpacked like a tensor.
const SCLayoutHeader* unpackable(const Tensor& weight, const Tensor& like, int64_t n, int64_t k,
                                 int64_t first, const SCKernel& kernel) {
  const SCLayoutHeader* header = layout_of(weight, kernel);
  TORCH_CHECK(first >= 0 && n >= 0 && n <= header->n - first && k == header->k,
              "sparsecompile: unpack to [", n, ", ", k, "] from row ", first,
              ", the packed weight is [", header->n, ", ", header->k, "]");
  TORCH_CHECK(like.scalar_type() == dtype_of(kernel) || like.scalar_type() == at::kFloat,
              "sparsecompile: unpack like ", like.scalar_type(), ", the packed weight is ",
              dtype_of(kernel));
  return header;
}

Tensor unpack_cpu(const Tensor& weight, const Tensor& like, int64_t n, int64_t k, int64_t key,
                  int64_t first) {
  const SCKernel& kernel = kernel_of(key);
  const SCLayoutHeader* header = unpackable(weight, like, n, k, first, kernel);
  Tensor dense = at::empty({n, k}, like.options());
  const bool in_float32 = like.scalar_type() == at::kFloat;
  kernel.unpack(header, first, n, in_float32, dense.mutable_data_ptr(), at::get_num_threads());
  return dense;
}

Tensor unpack_rows_cpu(const Tensor& weight, const Tensor& rows, const Tensor& like, int64_t n,
                       int64_t k, int64_t key, int64_t first) {
  const SCKernel& kernel = kernel_of(key);
  const SCLayoutHeader* header = unpackable(weight, like, n, k, first, kernel);
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
    TORCH_CHECK(!kernel_of(key).epilogue,
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
  using Linear = Tensor(const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&,
                        const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                        const OptionalTensor&, int64_t, int64_t);
  static const auto linear =
      c10::Dispatcher::singleton().findSchemaOrThrow("sparsecompile::linear", "").typed<Linear>();
  at::AutoDispatchBelowAutograd below;
  return linear.redispatch(keys & c10::after_autograd_keyset, x, weight, bias, operand0, operand1,
                           dense0, dense1, dense2, n, key);
}

}  // namespace

TORCH_LIBRARY_IMPL(sparsecompile, CPU, m) {
  m.impl("linear", &linear_cpu);
  m.impl("unpack", &unpack_cpu);
  m.impl("unpack_rows", &unpack_rows_cpu);
}

TORCH_LIBRARY_IMPL(sparsecompile, Autograd, m) { m.impl("linear", &linear_autograd); }

SC_EXPORT void sc_register_kernel(const SCKernel* kernel) {
  const std::lock_guard<std::mutex> guard(registration);
  auto* next = new Table(*table.load(std::memory_order_relaxed));
  next->insert_or_assign(kernel->key, *kernel);
  table.store(next, std::memory_order_release);
}

// Take memory out of the caches, so that what reads it next is as slow as it can be.
SC_EXPORT void sc_evict(const void* memory, int64_t bytes) {
#if defined(__SSE2__)
  const char* at = static_cast<const char*>(memory);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_ia32_clflush(at + i);
  __builtin_ia32_mfence();
#else
  // Elsewhere by filling the caches with something else.
  static std::vector<char> other(size_t{256} << 20);
  std::memset(other.data(), static_cast<int>(bytes), other.size());
#endif
}
