// Small blocks of one heap that a thread with another heap has freed, sent back together.
//
// A block freed by another thread costs what its cache lines cost to cross from one processor to the other. A parcel crosses as lines
// in a row, and the owner needs no line of the slab's that others write.
//
// Thread rule: the sending heap's until it is sent, then the owner's. Its memory is a record of the page store's.
#pragma once

#include <cstdint>

#include "blocks/slab.hpp"

namespace rtpool::blocks {

class Heap;

struct alignas(64) Parcel {
  struct Block {
    Slab* slab;
    std::uint64_t unit;
  };
  static constexpr unsigned k_most = 30;

  Heap* owner;
  Parcel* next;  // of those sent to the owner
  std::uint64_t count;
  Block blocks[k_most];
};
static_assert(sizeof(Parcel) == 512);

}  // namespace rtpool::blocks
