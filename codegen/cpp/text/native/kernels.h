// The native library behind torch.ops.sparsecompile, built once and cached: kernels by key and
// layout, which Python registers, and the checks of what they read. arguments.h comes before this
// text, the ops after it.

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <atomic>
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
  int64_t largest_m[SC_MAX_RANGES];  // by rising m; the last range has no end
  SCLinear linear[SC_MAX_RANGES];
  SCWorkspace workspace[SC_MAX_RANGES];
  int64_t dense[SC_MAX_RANGES];  // whether torch's dense linear runs, if the weight is at hand
  SCUnpack unpack;
  SCLinear finish;
};

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Kernels by key, one for each layout: they compute the same. A registration publishes a new table;
// old ones are kept, since a call may still read them, and registrations are few.
using Table = std::unordered_map<int64_t, std::vector<SCKernel>>;
std::atomic<const Table*> table{new Table()};
std::mutex registration;

const std::vector<SCKernel>& kernels_of(int64_t key) {
  const Table& kernels = *table.load(std::memory_order_acquire);
  const auto found = kernels.find(key);
  TORCH_CHECK(found != kernels.end(), "sparsecompile has no kernel ", key,
              " in this process: compile the model again with torch.compile(..., "
              "backend=\"sparse\") before calling it");
  return found->second;
}

constexpr at::ScalarType dtypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

at::ScalarType dtype_of(const SCKernel& kernel) { return dtypes[kernel.dtype]; }

// The layout behind `weight`, which may be a view of its header alone.
const SCLayoutHeader* layout_of(const Tensor& weight) {
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
  const int64_t there = (int64_t)weight.storage().nbytes() - weight.storage_offset();
  TORCH_CHECK(header->total_bytes <= there, "sparsecompile: the packed weight is cut off: ", there,
              " of ", header->total_bytes, " bytes are there; prepack it again");
  return header;
}

// The kernel of this key that reads the layout.
const SCKernel& kernel_of(int64_t key, const SCLayoutHeader* header) {
  const std::vector<SCKernel>& kernels = kernels_of(key);
  for (const SCKernel& kernel : kernels)
    if (kernel.layout == header->layout) return kernel;
  TORCH_CHECK(false, "sparsecompile: the packed weight has layout ", header->layout, ", kernel ",
              key, " reads layout ", kernels.front().layout,
              "; prepack the weight with this kernel");
}

Tensor check_input(const Tensor& tensor, const char* name, const SCKernel& kernel) {
  TORCH_CHECK(tensor.device().is_cpu(), "sparsecompile: ", name, " must be on the CPU, not on ",
              tensor.device());
  TORCH_CHECK(tensor.scalar_type() == dtype_of(kernel), "sparsecompile: ", name, " is ",
              tensor.scalar_type(), ", the kernel was made for ", dtype_of(kernel),
              "; convert it or compile the model in its dtype");
  return tensor.contiguous();
}

// Whether a weight is the dense one itself, which a graph hands over while that fits no layout.
bool is_dense(const Tensor& weight, int64_t key) {
  return weight.scalar_type() == dtype_of(kernels_of(key).front());
}

bool given(const OptionalTensor& tensor) { return tensor.has_value() && tensor->defined(); }

}  // namespace

// Call a kernel by its key from now on where a weight has its layout.
SC_EXPORT void sc_register_kernel(const SCKernel* kernel) {
  const std::lock_guard<std::mutex> guard(registration);
  auto* next = new Table(*table.load(std::memory_order_relaxed));
  std::vector<SCKernel>& kernels = (*next)[kernel->key];
  std::erase_if(kernels, [&](const SCKernel& old) { return old.layout == kernel->layout; });
  kernels.push_back(*kernel);
  table.store(next, std::memory_order_release);
}

// Let what is called by `call` run a kernel, known by its key, where a weight has its layout.
SC_EXPORT void sc_serve(int64_t call, int64_t key) {
  SCKernel kernel = kernels_of(key).front();
  kernel.key = call;
  sc_register_kernel(&kernel);
}
