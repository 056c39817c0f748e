// Eigen over a pool: the result is computed where the array that is returned has its data, and what lives in between comes from
// the same pool by std::pmr.
#include <pybind11/numpy.h>

#include <Eigen/Core>
#include <memory_resource>
#include <rtpool/rtpool.hpp>
#include <vector>

namespace py = pybind11;

namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Samples = py::array_t<double, py::array::c_style | py::array::forcecast>;

// Of the columns of `samples`.
py::array_t<double> covariance(const Samples& samples) {
  if (samples.ndim() != 2 || samples.shape(0) < 2) throw py::value_error("samples must be rows of values, two at least");
  const py::ssize_t rows = samples.shape(0), columns = samples.shape(1);
  const rtpool::pool pool = rtpool::current_pool();
  rtpool::block memory(pool, static_cast<std::size_t>(columns * columns) * sizeof(double));
  rtpool::memory_resource resource(pool);
  std::pmr::vector<double> scratch(static_cast<std::size_t>(rows * columns), &resource);
  {
    const py::gil_scoped_release others_run;
    const Eigen::Map<const Matrix> values(samples.data(), rows, columns);
    Eigen::Map<Matrix, Eigen::Aligned16> centred(scratch.data(), rows, columns);
    Eigen::Map<Matrix, Eigen::Aligned16> result(memory.as<double>(), columns, columns);
    centred = values.rowwise() - values.colwise().mean();
    result.noalias() = centred.transpose() * centred;
    result /= static_cast<double>(rows - 1);
  }
  auto* const data = memory.as<double>();
  return py::array_t<double>({columns, columns}, data, py::reinterpret_steal<py::object>(memory.to_capsule()));
}

}  // namespace

PYBIND11_MODULE(covariance, module, py::mod_gil_not_used()) {
  if (rtpool_import() < 0) throw py::error_already_set();
  module.def("covariance", &covariance);
}
