// OpenCV over a pool: every cv::Mat that is made with this allocator lies where np.empty would lie, and goes to Python as an array
// without a copy.
#include <pybind11/numpy.h>

#include <memory>
#include <opencv2/core.hpp>
#include <rtpool/rtpool.hpp>

namespace py = pybind11;

namespace {

// Each block remembers its pool, and holds it, in UMatData::handle: a cv::Mat may outlive the handler it was made in.
class PoolAllocator final : public cv::MatAllocator {
 public:
  cv::UMatData* allocate(int dims, const int* sizes, int type, void* data, std::size_t* step, cv::AccessFlag,
                         cv::UMatUsageFlags) const override {
    std::size_t total = CV_ELEM_SIZE(type);
    for (int i = dims - 1; i >= 0; --i) {
      if (step != nullptr) {
        if (data != nullptr && step[i] != cv::Mat::AUTO_STEP) {
          CV_Assert(total <= step[i]);
          total = step[i];
        } else {
          step[i] = total;
        }
      }
      total *= static_cast<std::size_t>(sizes[i]);
    }
    auto made = std::make_unique<cv::UMatData>(this);
    made->size = total;
    made->data = made->origdata = static_cast<uchar*>(data);
    if (data != nullptr) {
      made->flags |= cv::UMatData::USER_ALLOCATED;
      return made.release();
    }
    rtpool_pool* const pool = rtpool_current_pool();
    made->data = made->origdata = static_cast<uchar*>(rtpool_allocate(pool, total));
    made->handle = pool;
    if (made->data == nullptr) {
      rtpool_release_pool(pool);
      CV_Error(cv::Error::StsNoMem, "the pool has no memory for this cv::Mat");
    }
    return made.release();
  }

  bool allocate(cv::UMatData* data, cv::AccessFlag, cv::UMatUsageFlags) const override { return data != nullptr; }

  void deallocate(cv::UMatData* data) const override {
    if (data == nullptr) return;
    CV_Assert(data->urefcount == 0 && data->refcount == 0);
    if ((data->flags & cv::UMatData::USER_ALLOCATED) == 0) {
      auto* const pool = static_cast<rtpool_pool*>(data->handle);
      rtpool_release(pool, data->origdata, data->size);
      rtpool_release_pool(pool);
    }
    delete data;
  }
};

PoolAllocator& allocator() {
  static PoolAllocator one;
  return one;
}

// An array over the matrix, which stays for as long as the array does.
py::array array_over(const cv::Mat& matrix) {
  auto kept = std::make_unique<cv::Mat>(matrix);
  const py::capsule owner(kept.get(), [](void* made) { delete static_cast<cv::Mat*>(made); });
  const cv::Mat& alive = *kept.release();
  return py::array_t<std::uint8_t>({alive.rows, alive.cols}, {static_cast<py::ssize_t>(alive.step[0]), py::ssize_t{1}}, alive.data,
                                   owner);
}

py::array rotate(const py::array_t<std::uint8_t, py::array::c_style | py::array::forcecast>& image) {
  if (image.ndim() != 2) throw py::value_error("image must have two dimensions");
  const cv::Mat source(static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1)), CV_8U,
                       const_cast<std::uint8_t*>(image.data()));
  cv::Mat turned;
  turned.allocator = &allocator();
  cv::rotate(source, turned, cv::ROTATE_90_CLOCKWISE);
  return array_over(turned);
}

}  // namespace

PYBIND11_MODULE(rotate, module, py::mod_gil_not_used()) {
  if (rtpool_import() < 0) throw py::error_already_set();
  module.def("rotate", &rotate);
}
