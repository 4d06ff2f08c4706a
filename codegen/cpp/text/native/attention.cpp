// sparsecompile::attention: memory and threads for the kernel.
#include <ATen/ops/empty.h>

// How Python registers a kernel of attention; native.py has the same fields.
struct SCAttentionKernel {
  int64_t key;
  int64_t dtype;      // of q and the result, as in SCKernel
  int64_t kv_dtype;   // of k and v
  int64_t head_dim;   // columns of q and k
  int64_t value_dim;  // columns of v
  int64_t groups;     // heads of q for each of k and v
  int64_t softcap;    // whether there is one
  int64_t ranges;     // how many of the following are used
  int64_t largest_q[SC_MAX_RANGES];  // by rising number of queries; the last range has no end
  SCAttention attention[SC_MAX_RANGES];
  SCAttentionWorkspace workspace[SC_MAX_RANGES];
};

namespace {

Published<SCAttentionKernel> attention_kernels;

Tensor check_rows(const Tensor& tensor, const char* name, int64_t dtype, int64_t columns) {
  TORCH_CHECK(tensor.scalar_type() == dtypes[dtype], "sparsecompile: ", name, " is ",
              tensor.scalar_type(), ", the kernel was made for ", dtypes[dtype],
              "; convert it or compile the model in its dtype");
  TORCH_CHECK(tensor.dim() == 4 && tensor.size(3) == columns, "sparsecompile: ", name,
              " has shape ", tensor.sizes(), ", it must be [batch, heads, length, ", columns, "]");
  return tensor.stride(3) == 1 ? tensor : tensor.contiguous();
}

// Sizes of 1 serve all.
SCRows strided(const Tensor& tensor) {
  const auto stride = [&](int64_t dim) { return tensor.size(dim) == 1 ? 0 : tensor.stride(dim); };
  const int64_t dtype = std::find(dtypes, std::end(dtypes), tensor.scalar_type()) - dtypes;
  return {tensor.const_data_ptr(), stride(0), stride(1), stride(2), dtype};
}

const SCBlockMask* check_mask(const Tensor& mask, at::IntArrayRef shape) {
  const auto* header = header_of<SCBlockMask>(mask, "mask", "scan_mask or interval_mask");
  const bool serves = (header->batch == 1 || header->batch == shape[0]) &&
                      (header->heads == 1 || header->heads == shape[1]) &&
                      header->q == shape[2] && header->kv == shape[3];
  TORCH_CHECK(serves, "sparsecompile: the mask is one of [", header->batch, ", ", header->heads,
              ", ", header->q, ", ", header->kv, "], the scores are ", shape);
  const int64_t form = shape[2] <= SC_FEW_QUERIES ? 2 : 1;
  TORCH_CHECK(header->form == form, "sparsecompile: the mask has form ", header->form, ", for ",
              shape[2], " queries it must be ", form);
  return header;
}

void check_floats(const Tensor& tensor, const char* name, const char* of, at::IntArrayRef shape) {
  TORCH_CHECK(std::count(dtypes, dtypes + 3, tensor.scalar_type()), "sparsecompile: ", name,
              " must be float32, bfloat16 or float16, not ", tensor.scalar_type());
  bool serves = tensor.dim() == 4;
  for (int64_t dim = 0; serves && dim < 4; ++dim)
    serves = tensor.size(dim) == 1 || tensor.size(dim) == shape[dim];
  TORCH_CHECK(serves, "sparsecompile: ", name, " has shape ", tensor.sizes(),
              ", it must be that of ", of, ", ", shape, ", or 1 in some dimensions");
}

SCRows check_scale(const OptionalTensor& scale, const char* name, const SCAttentionKernel& kernel,
                   const Tensor& keys) {
  TORCH_CHECK(given(scale) == (kernel.kv_dtype != kernel.dtype), "sparsecompile: there is ",
              given(scale) ? "a " : "no ", name, ", and the kernel reads ", dtypes[kernel.kv_dtype]);
  if (!given(scale)) return {};
  check_floats(*scale, name, "the rows of k and v", {keys.size(0), keys.size(1), keys.size(2), 1});
  return strided(*scale);
}

Tensor check_bias(const Tensor& bias, at::IntArrayRef shape) {
  check_floats(bias, "bias", "the scores", shape);
  at::DimVector sizes(bias.sizes());
  sizes[3] = shape[3];
  const Tensor whole = bias.expand(sizes);
  return whole.stride(3) == 1 ? whole : whole.contiguous();
}

Tensor attention_cpu(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& mask,
                     const OptionalTensor& bias, double scale, double softcap, int64_t key,
                     const OptionalTensor& k_scale, const OptionalTensor& v_scale) {
  const SCAttentionKernel& kernel = attention_kernels.at(key);
  const Tensor queries = check_rows(q, "q", kernel.dtype, kernel.head_dim);
  const Tensor keys = check_rows(k, "k", kernel.kv_dtype, kernel.head_dim);
  const Tensor values = check_rows(v, "v", kernel.kv_dtype, kernel.value_dim);
  const int64_t shape[] = {q.size(0), q.size(1), q.size(2), k.size(2)};
  TORCH_CHECK(k.size(0) == q.size(0) && k.size(1) * kernel.groups == q.size(1),
              "sparsecompile: k has ", k.size(0), " batch entries and ", k.size(1),
              " heads; those of q are ", q.size(0), " and ", q.size(1), ", ", kernel.groups,
              " for each of k");
  TORCH_CHECK(v.sizes().slice(0, 3) == k.sizes().slice(0, 3), "sparsecompile: v has shape ",
              v.sizes(), ", all but its columns must be those of k, ", k.sizes());
  TORCH_CHECK(scale > 0, "sparsecompile: scores are scaled by ", scale, ", it must be positive");
  TORCH_CHECK(kernel.softcap ? softcap > 0 : softcap == 0, "sparsecompile: softcap is ", softcap,
              ", the kernel was made ", kernel.softcap ? "for one" : "for none");
  SCAttentionArguments a{};
  if (given(mask)) a.mask = check_mask(*mask, shape);
  Tensor added;
  if (given(bias)) {
    added = check_bias(*bias, shape);
    a.bias = strided(added);
  }
  a.k_scale = check_scale(k_scale, "k_scale", kernel, keys);
  a.v_scale = check_scale(v_scale, "v_scale", kernel, keys);
  TORCH_CHECK(!a.mask || !a.mask->is_biased || a.bias.data,
              "sparsecompile: the mask has tiles to which a bias is added, and there is none");
  const Tensor out =
      at::empty({shape[0], shape[2], shape[1], kernel.value_dim}, q.options()).transpose(1, 2);
  if (out.numel() == 0) return out;
  a.q = strided(queries);
  a.k = strided(keys);
  a.v = strided(values);
  a.out = strided(out);
  a.batch = shape[0];
  a.heads = shape[1];
  a.kv_heads = k.size(1);
  a.q_length = shape[2];
  a.kv_length = shape[3];
  a.scale = static_cast<float>(scale);
  a.softcap = static_cast<float>(softcap);
  a.threads = at::get_num_threads();
  int64_t range = 0;
  while (range + 1 < kernel.ranges && a.q_length > kernel.largest_q[range]) ++range;
  a.workspace = workspace.reserve(kernel.workspace[range](&a));
  kernel.attention[range](&a);
  workspace.trim();
  return out;
}

}  // namespace

// Call a kernel of attention by its key from now on.
SC_EXPORT void sc_register_attention(const SCAttentionKernel* kernel) {
  attention_kernels.change(kernel->key, [&](SCAttentionKernel& known) { known = *kernel; });
}

// Let what is called by `call` run a kernel of attention, known by its key.
SC_EXPORT void sc_serve_attention(int64_t call, int64_t key) {
  SCAttentionKernel kernel = attention_kernels.at(key);
  kernel.key = call;
  sc_register_attention(&kernel);
}

TORCH_LIBRARY_IMPL(sparsecompile, CPU, m) { m.impl("attention", &attention_cpu); }
