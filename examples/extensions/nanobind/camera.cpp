// A camera for nanobind: its frames are arrays in the memory that np.empty would use.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <atomic>
#include <rtpool/rtpool.hpp>

namespace nb = nanobind;

namespace {

using Frame = nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<2>>;

// Stands for the driver: fills memory that it is given.
class Camera {
 public:
  Camera(std::size_t height, std::size_t width) : height(height), width(width) {}
  void read(std::uint8_t* pixels) {
    const unsigned number = ++count;
    for (std::size_t i = 0; i < height * width; ++i) pixels[i] = static_cast<std::uint8_t>(i % width + i / width + number);
  }

  const std::size_t height, width;
  std::atomic<unsigned> count = 0;  // without a GIL two threads may read at once
};

Frame grab(Camera& camera) {
  rtpool::block frame(rtpool::current_pool(), camera.height * camera.width);
  auto* const pixels = frame.as<std::uint8_t>();
  camera.read(pixels);
  const nb::object owner = nb::steal(frame.to_capsule());
  return Frame(pixels, {camera.height, camera.width}, owner);
}

}  // namespace

NB_MODULE(camera, module) {
  if (rtpool_import() < 0) throw nb::python_error();
  nb::class_<Camera>(module, "Camera").def(nb::init<std::size_t, std::size_t>()).def("grab", &grab);
}
