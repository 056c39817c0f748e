#include "pool/refusal.hpp"

namespace rtpool::pool {
namespace {

thread_local constinit Refusal t_refusal;

}  // namespace

void note_refusal(const Refusal& refusal) noexcept { t_refusal = refusal; }

Refusal take_refusal() noexcept {
  const Refusal last = t_refusal;
  t_refusal = {};
  return last;
}

}  // namespace rtpool::pool
