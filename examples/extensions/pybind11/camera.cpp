// A camera for pybind11: its frames are arrays in the memory that np.empty would use.
#include <pybind11/numpy.h>

#include <atomic>
#include <rtpool/rtpool.hpp>

namespace py = pybind11;

namespace {

// Stands for the driver: fills memory that it is given.
class Camera {
 public:
  Camera(py::ssize_t height, py::ssize_t width) : height(height), width(width) {}
  void read(std::uint8_t* pixels) {
    const unsigned number = ++count;
    for (py::ssize_t i = 0; i < height * width; ++i) pixels[i] = static_cast<std::uint8_t>(i % width + i / width + number);
  }

  const py::ssize_t height, width;
  std::atomic<unsigned> count = 0;  // without a GIL two threads may read at once
};

py::array_t<std::uint8_t> grab(Camera& camera) {
  rtpool::block frame(rtpool::current_pool(), static_cast<std::size_t>(camera.height * camera.width));
  auto* const pixels = frame.as<std::uint8_t>();
  camera.read(pixels);
  const auto owner = py::reinterpret_steal<py::object>(frame.to_capsule());
  return py::array_t<std::uint8_t>({camera.height, camera.width}, pixels, owner);
}

}  // namespace

PYBIND11_MODULE(camera, module, py::mod_gil_not_used()) {
  if (rtpool_import() < 0) throw py::error_already_set();
  py::class_<Camera>(module, "Camera").def(py::init<py::ssize_t, py::ssize_t>()).def("grab", &grab);
}
