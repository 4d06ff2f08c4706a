// sparsecompile::stamp and is_fresh: whether live tensors are still what was packed.
#include <ATen/ops/from_blob.h>
#include <c10/util/intrusive_ptr.h>

#include <memory>
#include <vector>

namespace {

struct Stamp {
  // Weak: whoever holds it keeps no weight alive, and no other tensor gets the same address.
  c10::weak_intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl> tensor;
  int64_t version;
  const void* data;

  explicit Stamp(const Tensor& live)
      : tensor(live.getIntrusivePtr()), version(live._version()), data(live.const_data_ptr()) {}
  bool matches(const Tensor& live) const {
    return tensor._unsafe_get_target() == live.unsafeGetTensorImpl() &&
           version == live._version() && data == live.const_data_ptr();
  }
};
using Stamps = std::vector<Stamp>;

// A tensor that owns the stamps; only is_fresh looks inside.
Tensor stamp(at::TensorList tensors) {
  auto stamps = std::make_unique<Stamps>(tensors.begin(), tensors.end());
  const auto free_stamps = [](void* memory) { delete static_cast<Stamps*>(memory); };
  return at::from_blob(stamps.release(), {int64_t{sizeof(Stamps)}}, free_stamps, at::kByte);
}

bool is_fresh(at::TensorList tensors, const Tensor& owner) {
  TORCH_CHECK(owner.is_cpu() && owner.scalar_type() == at::kByte &&
                  owner.numel() == sizeof(Stamps),
              "sparsecompile: these are no stamps; pass what stamp() made");
  const auto& stamps = *static_cast<const Stamps*>(owner.const_data_ptr());
  if (tensors.size() != stamps.size()) return false;
  for (size_t i = 0; i < stamps.size(); ++i)
    if (!stamps[i].matches(tensors[i])) return false;
  return true;
}

}  // namespace

TORCH_LIBRARY_IMPL(sparsecompile, CompositeExplicitAutograd, m) {
  m.impl("stamp", &stamp);
  m.impl("is_fresh", &is_fresh);
}
