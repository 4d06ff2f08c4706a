// Whether live tensors are still what was packed. Every call of a graph asks for all its weights, so
// they are looked at where they are, among the call's Python arguments. Without Python's headers
// there is none of this, and Python looks itself.
#if __has_include(<Python.h>)
#include <Python.h>

#include <memory>
#include <vector>

namespace {

// How torch's Python tensors begin. Its own header takes longer to compile than all the rest, and
// whether this is still so is asked of a tensor before any stamp is taken.
struct PythonTensor {
  PyObject_HEAD
  Tensor tensor;
};
const Tensor& tensor_in(PyObject* object) {
  return reinterpret_cast<const PythonTensor*>(object)->tensor;
}

struct Stamp {
  Py_ssize_t place;
  PyTypeObject* type;
  // Weak: no weight is kept alive, and no other tensor or storage gets the same address.
  c10::weak_intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl> tensor;
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  int64_t version;
  const void* data;
  std::vector<int64_t> sizes, strides;

  Stamp(PyObject* argument, Py_ssize_t at_place)
      : place(at_place),
        type(Py_TYPE(argument)),
        tensor(tensor_in(argument).getIntrusivePtr()),
        storage(tensor_in(argument).storage().getWeakStorageImpl()),
        version(tensor_in(argument)._version()),
        data(tensor_in(argument).const_data_ptr()),
        sizes(tensor_in(argument).sizes().vec()),
        strides(tensor_in(argument).strides().vec()) {}
  bool matches(PyObject* argument) const {
    if (Py_TYPE(argument) != type) return false;
    const Tensor& live = tensor_in(argument);
    const c10::StorageImpl* held = live.storage().unsafeGetStorageImpl();
    return tensor._unsafe_get_target() == live.unsafeGetTensorImpl() &&
           storage._unsafe_get_target() == held && version == live._version() &&
           data == live.const_data_ptr() && live.sizes() == sizes && live.strides() == strides;
  }
};
using Stamps = std::vector<Stamp>;

}  // namespace

// Where the tensor behind a Python tensor is: the same as its `_cdata`.
SC_EXPORT const void* sc_tensor_in(PyObject* object) { return tensor_in(object).unsafeGetTensorImpl(); }

// Stamps of the tensors at these places of a tuple; null for those that have no version or address.
SC_EXPORT void* sc_stamp(PyObject* arguments, const int64_t* places, int64_t count) {
  try {
    auto stamps = std::make_unique<Stamps>();
    for (int64_t i = 0; i < count; ++i)
      stamps->emplace_back(PyTuple_GET_ITEM(arguments, places[i]), places[i]);
    return stamps.release();
  } catch (const std::exception&) {
    return nullptr;
  }
}

SC_EXPORT int sc_is_fresh(PyObject* arguments, const void* stamps) {
  try {
    for (const Stamp& stamp : *static_cast<const Stamps*>(stamps))
      if (!stamp.matches(PyTuple_GET_ITEM(arguments, stamp.place))) return 0;
    return 1;
  } catch (const std::exception&) {
    return 0;
  }
}

SC_EXPORT void sc_forget_stamps(void* stamps) { delete static_cast<Stamps*>(stamps); }
#endif
