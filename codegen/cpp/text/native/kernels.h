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
  int64_t stage_m[SC_MAX_RANGES];  // for how many rows of x it can be a stage of a region; 0: never
  SCUnpack unpack;
  SCLinear finish;
};

namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// A map from keys that is read while it changes. A change publishes a new map; old ones are kept, since
// a call may still read them, and changes are few.
template <class Value>
class Published {
  using Map = std::unordered_map<int64_t, Value>;
  std::atomic<const Map*> map{new Map()};
  std::mutex changing;

 public:
  const Value& at(int64_t key) const {
    const Map& values = *map.load(std::memory_order_acquire);
    const auto found = values.find(key);
    TORCH_CHECK(found != values.end(), "sparsecompile has no kernel ", key,
                " in this process: compile the model again with torch.compile(..., "
                "backend=\"sparse\") before calling it");
    return found->second;
  }
  template <class Change>
  void change(int64_t key, Change&& to) {
    const std::lock_guard<std::mutex> guard(changing);
    auto* next = new Map(*map.load(std::memory_order_relaxed));
    to((*next)[key]);
    map.store(next, std::memory_order_release);
  }
};

// One for each layout: they compute the same.
Published<std::vector<SCKernel>> table;

const std::vector<SCKernel>& kernels_of(int64_t key) { return table.at(key); }

constexpr at::ScalarType dtypes[] = {at::kFloat, at::kBFloat16, at::kHalf, at::kChar};

at::ScalarType dtype_of(const SCKernel& kernel) { return dtypes[kernel.dtype]; }

// The header that a layout begins with, of which a tensor may be a view alone. What it is called, and who
// made it, are for messages.
template <class Header>
const Header* header_of(const Tensor& layout, const char* what, const char* maker) {
  TORCH_CHECK(layout.scalar_type() == at::kByte && layout.device().is_cpu(), "sparsecompile: the ",
              what, " must be uint8 on the CPU, not ", layout.scalar_type(), " on ", layout.device());
  TORCH_CHECK(layout.dim() == 1 && layout.numel() >= (int64_t)sizeof(Header) &&
                  layout.stride(0) == 1,
              "sparsecompile: the ", what, " must be one-dimensional, contiguous and hold a header of ",
              sizeof(Header), " bytes; pass what ", maker, " made");
  const auto* header = static_cast<const Header*>(layout.const_data_ptr());
  TORCH_CHECK(reinterpret_cast<uintptr_t>(header) % 64 == 0, "sparsecompile: the ", what,
              " must begin at a multiple of 64 bytes; clone() it");
  const int64_t there = (int64_t)layout.storage().nbytes() - layout.storage_offset();
  TORCH_CHECK(header->total_bytes <= there, "sparsecompile: the ", what, " is cut off: ", there,
              " of ", header->total_bytes, " bytes are there; pass all that ", maker, " made");
  return header;
}

const SCLayoutHeader* layout_of(const Tensor& weight) {
  return header_of<SCLayoutHeader>(weight, "packed weight", "the kernel's prepack");
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
  table.change(kernel->key, [&](std::vector<SCKernel>& kernels) {
    std::erase_if(kernels, [&](const SCKernel& old) { return old.layout == kernel->layout; });
    kernels.push_back(*kernel);
  });
}

// Let what is called by `call` run a kernel, known by its key, where a weight has its layout.
SC_EXPORT void sc_serve(int64_t call, int64_t key) {
  SCKernel kernel = kernels_of(key).front();
  kernel.key = call;
  sc_register_kernel(&kernel);
}
